#!/usr/bin/env bash
# A command as an ordinary user with 1,024 descriptors, in a fresh clone of this checkout.
# Root makes a user for it; who is no root already is one. Usage: as_user.sh <command>...
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
if [ "$(id -u)" != 0 ]; then
	cd "$checkout"
	ulimit -n 1024
	exec "$@"
fi
user=khesht-$$
useradd --create-home --home-dir "/var/tmp/$user" --shell /bin/bash "$user"
cleanup() {
	left=$(ps -o pid=,args= -u "$user" || true)
	ps -o pid= -u "$user" | xargs --no-run-if-empty kill -KILL || true
	sleep 1
	userdel --remove "$user" 2>/dev/null || userdel --force "$user"
	if [ -n "$left" ]; then
		echo "left running: $left"
		exit 1
	fi
}
trap cleanup EXIT
git clone --quiet "$checkout" "/var/tmp/$user/khesht"
chown -R "$user:" "/var/tmp/$user"
cd "/var/tmp/$user/khesht"
ulimit -n 1024
echo "== $*, as $user with $(ulimit -n) descriptors"
runuser -u "$user" -- env HOME="/var/tmp/$user" USER="$user" LOGNAME="$user" \
	PATH=/usr/local/bin:/usr/bin:/bin "$@"
