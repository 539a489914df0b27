#!/usr/bin/env bash
# The README's first command in a fresh clone, on one interpreter: `make run` to "ready", Ctrl-C,
# and what depends on the interpreter: generated files, unit and contract tests.
# Usage: try_python.sh <interpreter>
set -euo pipefail
python=$1
echo "== $python, $("$python" --version)"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git clone --quiet "$(dirname "$0")/.." "$folder/khesht"
cd "$folder/khesht"
"$python" scripts/try_run.py "PYTHON=$python"
make gen-check test-unit test-contract
