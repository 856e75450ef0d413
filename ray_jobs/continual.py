"""Learn a stream as a Ray job, on the cluster that runs the job.

    ray job submit --working-dir . -- python ray_jobs/continual.py CONFIG workers.groups=4 output=/shared/runs/stream

Arguments are those of ``metacl continual``. Ray removes the job's working directory with the session, so give
`output` a folder that stays.
"""

from submitted import run  # Python finds it beside the script that it is given

if __name__ == "__main__":
    run("continual")
