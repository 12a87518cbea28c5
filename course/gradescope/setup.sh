#!/usr/bin/env bash
# Gradescope runs this once, when it builds the autograder's image: everything that needs a network.
set -euo pipefail
autograder=${AUTOGRADER:-/autograder}
command -v apt-get > /dev/null && apt-get update && apt-get install -y python3 python3-venv
python3 -m venv "$autograder/environment"
"$autograder/environment/bin/pip" install -r "$autograder/source/requirements.txt"
cd "$autograder/source"
"$autograder/environment/bin/python" -c 'import data; data.load("data")'
# A submission runs as another user (grading/confinement.py), for whom the reference and the checks are closed.
chmod -R go-rwx "$autograder/source"
