#!/bin/sh
# Prints the newest interpreter of this machine that khesht runs on; fails if there is none.
for minor in 14 13 12 11; do
	for python in "python3.$minor" "$HOME"/.pyenv/versions/3.$minor.*/bin/python3; do
		# A shim may stand there for an interpreter that is not chosen, or not installed.
		"$python" -c "import sys; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null || continue
		command -v "$python"
		exit 0
	done
	echo "there is no Python 3.$minor here" >&2
done
exit 1
