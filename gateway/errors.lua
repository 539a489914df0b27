-- Gives every error that leaves the edge the one envelope, takes gRPC's own headers from what is not gRPC, and makes comments of pings. Before it stand
-- gen/routes.lua, and ORIGINS: the origins that browsers may call from.
--
-- A service's error comes with its envelope made, in the header `khesht-error`. All others are refusals of Envoy's or of a gRPC library's: they get
-- constant words by their status, since their texts name addresses or echo the client. Only the transcoder's text is read, for the field to blame.

local REFUSALS = {
  -- HTTP status: gRPC status, reason (khesht.mesh.v1.ErrorReason), type (OpenAI's), message
  [400] = {"INVALID_ARGUMENT", "MALFORMED_REQUEST", "invalid_request_error", "the request is malformed"},
  [401] = {"UNAUTHENTICATED", "INVALID_CREDENTIALS", "authentication_error", "the credentials are not good"},
  [403] = {"PERMISSION_DENIED", "UNSUPPORTED", "permission_error", "tunnels and upgrades are not offered"},
  [404] = {"NOT_FOUND", "UNKNOWN_PATH", "not_found_error", "no such path"},
  [405] = {"UNIMPLEMENTED", "WRONG_METHOD", "invalid_request_error", "this path takes other methods, which Allow names"},
  [408] = {"DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "invalid_request_error", "the request took too long to arrive"},
  [413] = {"INVALID_ARGUMENT", "TOO_LARGE", "invalid_request_error", "the body is larger than this path takes"},
  [415] = {"UNIMPLEMENTED", "UNSUPPORTED", "invalid_request_error", "native gRPC is on its own port"},
  [426] = {"UNIMPLEMENTED", "UNSUPPORTED", "invalid_request_error", "this version of HTTP is not offered"},
  [429] = {"RESOURCE_EXHAUSTED", "OVERLOADED", "rate_limit_error", "too many calls at once"},
  [431] = {"INVALID_ARGUMENT", "TOO_LARGE", "invalid_request_error", "the headers are larger than 16 KiB, or more than 64"},
  [499] = {"CANCELLED", "CANCELLED", "cancelled_error", "the call was cancelled"},
  [500] = {"INTERNAL", "INTERNAL", "server_error", "internal error"},
  [501] = {"UNIMPLEMENTED", "UNSUPPORTED", "invalid_request_error", "this method is not offered"},
  [503] = {"UNAVAILABLE", "UNAVAILABLE", "server_error", "a part of the mesh does not answer"},
  [504] = {"DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "server_error", "the time for this call ran out"},
}

local ENCODED = {"INVALID_ARGUMENT", "UNSUPPORTED", "invalid_request_error", "a body is taken as it is, without Content-Encoding"}
local OVERLOADED = {"UNAVAILABLE", "OVERLOADED", "server_error", "too many calls at once"}

local EXPECTED = {
  TYPE_STRING = "not a string",
  TYPE_BOOL = "not true or false",
  TYPE_DOUBLE = "not a number",
  TYPE_INT32 = "not a whole number of 32 bits",
  TYPE_INT64 = "not a whole number of 64 bits",
  ["type.googleapis.com/google.protobuf.Timestamp"] = "not a time as RFC 3339 writes it",
  ["type.googleapis.com/google.protobuf.FieldMask"] = "not a list of fields",
}

-- Pages (envoy.yaml), whose method is all that can be wrong.
local PAGES = {["/"] = true, ["/api/health"] = true, ["/openapi.json"] = true, ["/khesht.binpb"] = true, ["/docs"] = true, ["/redoc"] = true}
for name in ("docs.js redoc.js swagger-ui-bundle.js redoc.standalone.js swagger-ui.css"):gmatch("%S+") do PAGES["/static/" .. name] = true end

-- What OpenAI's clients find at `error.code`; all others are null to them (mesh/openai_errors.py has those of services).
local OPENAI_CODES = {INVALID_CREDENTIALS = "invalid_api_key", UNKNOWN_PATH = "unknown_url"}
-- The first part of OpenAI's paths below /v1, those too that are not offered here.
local OPENAI_PATHS = {}
for name in ("assistants audio batches chat completions conversations embeddings evals files fine_tuning images models moderations realtime responses "
    .. "threads uploads vector_stores videos"):gmatch("%S+") do OPENAI_PATHS[name] = true end

-- What is larger goes to chat by connections of its own.
local SMALL_BYTES = 262144
-- Characters of a client's own name for a call, as of OpenAI's API.
local MOST_OF_AN_ID = 512

local LEFTOVERS = {"grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-accept-encoding", "grpc-encoding", "khesht-error", "khesht-refused", "khesht-pings"}

-- Envoy gives an id to requests that it could read. What its parser refused gets one here: a UUID of version 8 (RFC 9562), made of the time in
-- microseconds, a count, and where this worker keeps its table, which differs between workers and starts.
local count, worker = 0, tonumber(tostring(LEFTOVERS):match("0x(%x+)"), 16) or 0

local function new_id(handle)
  count = (count + 1) % 0x1000
  local micros = tonumber(handle:timestampString(EnvoyTimestampResolution.MICROSECOND)) or 0
  return string.format("%08x-%04x-8%03x-8%03x-%012x",
    math.floor(micros / 0x10000) % 0x100000000, micros % 0x10000, count, math.random(0, 0xfff), worker % 0x1000000000000)
end

-- The field that a text of the transcoder blames, and what is wrong with it; nil when it blames none.
local function blame(text)
  local parent, name = text:match("^([^:]*): invalid value Starting an object on a scalar field for type (%S+)$")
  if name then return parent == "" and name or parent .. "." .. name, "an object where one value belongs" end
  local field, kind = text:match("^([^:]+): invalid value .* for type (%S+)$")
  if field then return field, EXPECTED[kind] or "not an object" end
  field = text:match("^([^:]+): Proto field is not repeating")
  if field then return field, "holds a list where one value belongs" end
  field = text:match('^Could not find field "([^"]*)" in the type') or text:match('^Encountered a non%-leaf field "([^"]*)"')
  if field then return field, "no such query parameter" end
  field = text:match("^The binding value .* of the field (%S+) is conflicting with the value")
  if field then return field, "differs between path and body" end
end

-- The message and the JSON of the details for a text of the transcoder, and the path of a string in the body that is no text.
local function explain(text, half)
  local field, wrong = blame(text)
  if not field and half then field, wrong = half, "half of a surrogate pair, which is no character" end
  if not field then return text:find("^Message too deep") and "the body is nested too deeply" or "the body is not a JSON object", "[]" end
  -- The name of an unknown parameter is the client's: nothing but an identifier goes back.
  if #field > 64 or not field:find("^[%a_][%w_%.%[%]]*$") then return wrong, "[]" end
  local violation = '{"field":"' .. field .. '","description":"' .. wrong .. '"}'
  return field .. ": " .. wrong, '[{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[' .. violation .. "]}]"
end

-- The methods that a path takes, where that of the request is none of them; nil where it is, or the path is none.
local function other_methods(method, path)
  if PAGES[path] then return "GET, HEAD" end
  for _, route in ipairs(ROUTES) do
    if path:find(route[1]) then return not route[2]:find(method, 1, true) and route[2] or nil end
  end
end

-- The envelope of an error of the edge's own, as REST's clients read it, or as OpenAI's do.
local function envelope_of(status, refusal, message, details, request_id, openai)
  local code, param = status, ""
  if openai then
    local known = OPENAI_CODES[refusal[2]]
    code, param = known and '"' .. known .. '"' or "null", '"param":null,'
  end
  return string.format('{"error":{"code":%s,"status":"%s","reason":"%s","message":"%s","type":"%s",%s"details":%s,"request_id":"%s"}}',
    code, refusal[1], refusal[2], message, refusal[3], param, details, request_id)
end

-- Makes `: ping` of the events that only say that a stream is alive: the transcoder knows no comments. No text can look like one, since quotes in
-- texts are escaped.
local function comment_pings(handle)
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    local bytes = length > 0 and chunk:getBytes(0, length) or ""
    if bytes:find('"ping":true}', 1, true) then
      chunk:setBytes((bytes:gsub('data: {"generation_id":"[%x-]+","seq":%d+,"ping":true}\n', ": ping\n")))
    end
  end
end

-- Lets a browser of a listed origin read a page. (Envoy's own filter heeds only what goes to a cluster.)
local function allow(headers, origin)
  headers["access-control-allow-origin"] = origin
  if not ORIGINS["*"] then headers["access-control-allow-credentials"] = "true" end
  return headers
end

-- ---- gRPC: the same refusals as its clients read them -------------------------------------------------------------------------------
-- Codes of gRPC, by their names; and names of those that differ from what REST is told.
local NUMBERS = {CANCELLED = 1, INVALID_ARGUMENT = 3, DEADLINE_EXCEEDED = 4, NOT_FOUND = 5, PERMISSION_DENIED = 7, RESOURCE_EXHAUSTED = 8,
  UNIMPLEMENTED = 12, INTERNAL = 13, UNAVAILABLE = 14, UNAUTHENTICATED = 16}
local NATIVE = {[404] = "UNIMPLEMENTED", [413] = "RESOURCE_EXHAUSTED", [431] = "RESOURCE_EXHAUSTED"}

-- A field of a message: a message or a text of at most 16,383 bytes.
local function field(number, bytes)
  local length = #bytes < 128 and string.char(#bytes) or string.char(#bytes % 128 + 128, math.floor(#bytes / 128))
  return string.char(number * 8 + 2) .. length .. bytes
end

local function detail(name, bytes) return field(3, field(1, "type.googleapis.com/google.rpc." .. name) .. field(2, bytes)) end

-- Words a refusal of the edge's, which was HTTP's `status`, for who speaks gRPC (google.rpc.Status, AIP-193).
local function tell_native(handle, headers, status)
  local refusal = REFUSALS[status] or REFUSALS[status < 500 and 400 or 500]
  local number = NUMBERS[NATIVE[status] or refusal[1]]
  local details = detail("ErrorInfo", field(1, refusal[2]) .. field(2, "khesht"))
  if status == 503 then details = details .. detail("RetryInfo", field(1, "\8\1")) end  -- in one second
  headers:replace("grpc-status", tostring(number))
  headers:replace("grpc-message", refusal[4])
  headers:replace("grpc-status-details-bin", handle:base64Escape(string.char(8, number) .. field(2, refusal[4]) .. details))
end

function envoy_on_request(handle)
  local headers, noted = handle:headers(), handle:streamInfo():dynamicMetadata()
  local method, path = headers:get(":method"), headers:get(":path") or ""
  if method == "HEAD" then noted:set("khesht", "head", true) end
  noted:set("khesht", "asked", method .. " " .. path:match("^[^?]*"))
  if OPENAI_PATHS[path:match("^/v1/([%w_]+)")] then
    noted:set("khesht", "openai", true)
    -- Packages and proxies add parameters of their own, and no path of OpenAI's has any that is known here.
    headers:replace(":path", path:match("^[^?]*"))
  end
  local spoken = headers:get("content-type") or ""
  if spoken:find("application/grpc-web", 1, true) == 1 and #spoken < 64 then noted:set("khesht", "web", spoken) end
  local own_id = headers:get("x-client-request-id")
  if own_id and own_id ~= "" and #own_id <= MOST_OF_AN_ID and not own_id:find("[^!-~]") then
    noted:set("khesht", "own_id", own_id)
  elseif own_id then
    headers:remove("x-client-request-id")
  end
  local origin = headers:get("origin")
  if origin and PAGES[path:match("^[^?]*")] and (ORIGINS["*"] or ORIGINS[origin]) then
    noted:set("khesht", "origin", origin)
    if method == "OPTIONS" and headers:get("access-control-request-method") then
      handle:respond(allow({[":status"] = "200", ["access-control-allow-methods"] = "GET, HEAD", ["access-control-max-age"] = "600",
        ["access-control-allow-headers"] = headers:get("access-control-request-headers")}, origin), "")
    end
  end
  if headers:get("transfer-encoding") or (tonumber(headers:get("content-length") or "") or 0) > SMALL_BYTES then headers:replace("x-khesht-large", "1") end
  local encoding = headers:get("content-encoding")
  if encoding and encoding:lower() ~= "identity" then
    noted:set("khesht", "encoded", true)
    handle:respond({[":status"] = "415", ["accept-encoding"] = "identity"}, "encoded")
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local noted = handle:streamInfo():dynamicMetadata():get("khesht") or {}
  if noted.own_id then headers:replace("x-client-request-id", noted.own_id) end
  if noted.origin then
    for name, value in pairs(allow({}, noted.origin)) do headers:replace(name, value) end
  end
  -- What a cache keeps of an answer to one origin is no answer to another.
  if headers:get("access-control-allow-origin") then headers:add("vary", "Origin") end
  if not headers:get("x-request-id") then headers:replace("x-request-id", new_id(handle)) end
  local kind = headers:get("content-type") or ""
  if noted.web and tonumber(headers:get(":status")) >= 400 then  -- an answer over HTTP, which its clients would not read
    tell_native(handle, headers, tonumber(headers:get(":status")))
    headers:replace(":status", "200")
    headers:replace("content-type", noted.web)
    local body = handle:body(true)
    body:setBytes("")
    return
  end
  local refused = kind:find("application/grpc", 1, true) and (headers:get("grpc-message") or ""):match("^refused by the edge as HTTP (%d+)$")
  if refused and not headers:get("khesht-refused") then return tell_native(handle, headers, tonumber(refused)) end
  if kind:find("application/grpc-web", 1, true) then return end
  -- Envoy words a refusal of native gRPC as gRPC, with HTTP status 200; where a route marks it, it is to be an error of HTTP.
  if kind:find("application/grpc", 1, true) then
    if not headers:get("khesht-refused") then return end
    headers:replace(":status", "415")
  end

  local status, envelope, pings = tonumber(headers:get(":status")), headers:get("khesht-error"), headers:get("khesht-pings")
  for _, name in ipairs(LEFTOVERS) do headers:remove(name) end
  if status < 400 then
    if pings then comment_pings(handle) end
    return
  end
  if status == 404 and not envelope and noted.asked then
    local allowed = other_methods(noted.asked:match("^(%S+) (.*)$"))
    if allowed then
      status = 405
      headers:replace(":status", "405")
      headers:replace("allow", allowed)
    end
  end
  -- A service says itself when to come again. What is refused here is mostly for a moment.
  if status == 503 and not envelope and not headers:get("retry-after") then headers:replace("retry-after", "1") end

  if noted.head then return end  -- an answer to HEAD has no body
  local body = handle:body(true)
  headers = handle:headers()  -- waiting for the body ended the life of the former
  if not envelope then
    local refusal = kind == "text/x-overloaded" and OVERLOADED or noted.encoded and ENCODED or REFUSALS[status] or REFUSALS[status < 500 and 400 or 500]
    local message, details = refusal[4], "[]"
    if kind == "text/x-transcoder" and status == 400 then message, details = explain(body:getBytes(0, body:length()), noted.half) end
    envelope = envelope_of(status, refusal, message, details, headers:get("x-request-id") or "", noted.openai)
  end
  headers:replace("content-type", "application/json")
  headers:replace("x-content-type-options", "nosniff")  -- refusals that came before the route lack it
  body:setBytes(envelope)
end
