"""Unpacks RNNLG into one file of rows, as configs/larger/rnnlg.yaml reads it.

    python configs/larger/rnnlg.py ../shared/data/rnnlg/rnnlg_original.tar.xz runs/rnnlg.jsonl

Each triple of a dialogue act, a sentence that says it and a baseline's sentence becomes {"domain", "prompt",
"completion"}; the baseline is left out.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path


def main() -> None:
    """Domain by domain, in the archive's order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tarfile.open(arguments.archive) as archive:
        for member in sorted(archive.getnames()):
            file = archive.extractfile(member)
            if file is None or not member.endswith(".json"):
                continue
            lines = file.read().decode().splitlines()  # a heading stands above the JSON
            triples = json.loads("\n".join(line for line in lines if not line.startswith("#")))
            domain = Path(member).parent.name
            rows += [{"domain": domain, "prompt": act, "completion": said} for act, said, _ in triples]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows of {len({row['domain'] for row in rows})} domains written to {arguments.output}")


if __name__ == "__main__":
    main()
