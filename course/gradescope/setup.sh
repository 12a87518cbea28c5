#!/usr/bin/env bash
# Gradescope runs this once, when it builds the autograder's image. All downloads happen here.
set -euo pipefail
autograder=${AUTOGRADER:-/autograder}
command -v apt-get > /dev/null && apt-get update && apt-get install -y python3 python3-venv
python3 -m venv "$autograder/environment"
cd "$autograder/source"
# The CPU build of torch, without gigabytes of CUDA. If it is unavailable, the next line installs the default build.
"$autograder/environment/bin/pip" install --index-url https://download.pytorch.org/whl/cpu --timeout 20 --retries 1 \
    "$(grep '^torch[=<>~]' requirements.txt)" || true
"$autograder/environment/bin/pip" install -r requirements.txt
"$autograder/environment/bin/python" -c 'import data; data.load("data")'
# A submission runs as another user (grading/inside/walls.py), who cannot read the checks and the ratings.
chmod -R go-rwx "$autograder/source"
