"""Writes gen/openapi.json."""

import json

from scripts.openapi.contracts import ROOT, read
from scripts.openapi.document import document

text = json.dumps(document(read()), indent=1, ensure_ascii=False)
(ROOT / "gen" / "openapi.json").write_text(text + "\n")
