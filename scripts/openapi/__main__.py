"""Writes gen/openapi.json and gen/routes.lua."""

import json

from scripts.openapi.contracts import ROOT, read
from scripts.openapi.document import document
from scripts.openapi.routes import routes

contracts = read()
text = json.dumps(document(contracts), indent=1, ensure_ascii=False)
(ROOT / "gen" / "openapi.json").write_text(text + "\n")
(ROOT / "gen" / "routes.lua").write_text(routes(contracts))
