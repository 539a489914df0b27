#!/usr/bin/env bash
# Fetches what /docs and /redoc are made of into gateway/static, by the npm client. To move to a new version, change it here and in the `?v=` of
# gateway/pages/*.html, run this, and then `make test-browser`.
set -euo pipefail
cd "$(dirname "$0")/.."
SWAGGER_UI=5.35.0
REDOC=2.5.4

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
(cd "$fetched" && npm pack --silent "swagger-ui-dist@$SWAGGER_UI" "redoc@$REDOC" >/dev/null)

take() { # package, version, file in it, folder
  tar --extract --gzip --to-stdout --file "$fetched/$1-$2.tgz" "package/$3" >"gateway/static/$4/$(basename "$3")"
}
mkdir -p gateway/static/swagger-ui gateway/static/redoc
for file in swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt swagger-ui.css LICENSE NOTICE; do
  take swagger-ui-dist "$SWAGGER_UI" "$file" swagger-ui
done
for file in bundles/redoc.standalone.js bundles/redoc.standalone.js.LICENSE.txt LICENSE; do
  take redoc "$REDOC" "$file" redoc
done

# The one thing that a page would get from elsewhere, its maker's mark, becomes an empty picture; and nobody has the maps that are named at the end.
sed -i 's|"https://cdn\.redoc\.ly/redoc/logo-mini\.svg"|"data:,"|; /^\/\/# sourceMappingURL=/d' gateway/static/redoc/redoc.standalone.js
sed -i '/^\/\*# sourceMappingURL=.*\*\/$/d' gateway/static/swagger-ui/swagger-ui.css
