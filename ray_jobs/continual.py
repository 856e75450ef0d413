"""Learn a stream as a Ray job, on the cluster that runs the job.

    ray job submit --working-dir . -- python ray_jobs/continual.py CONFIG workers.groups=4 output=/shared/runs/stream

Arguments are those of ``metacl continual``. Ray removes the job's working directory with the session, so give
`output` a folder that stays.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metacl.cli import main

if __name__ == "__main__":
    if not any(argument.startswith("output=") for argument in sys.argv[1:]):
        print(f"note: no output=… given; files go below {Path.cwd()}, which Ray removes with the session.", flush=True)
    main(["continual", *sys.argv[1:]])
