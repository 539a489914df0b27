-- Tells services the names of the fields in a JSON body: the transcoder drops those that it does not know, and a mistyped limit would be no limit.
--
-- `x-khesht-names` has each once, as a path without indexes (`messages.role`), with commas between. What is no identifier is told as `?`. Services
-- compare them with their contracts (mesh/calls/unseen.py). `x-khesht-no-body` says of a PUT that it has none. A string with half of a surrogate pair is noted for errors.lua, as the transcoder names no field.

-- No message of ours has so many names; of those that are left out, one at least is told that is in no contract.
local MOST_BYTES = 4096
-- A body of many small values is slow to read; 1,000 turns of a conversation have about 8,000 marks.
local MOST_MARKS = 50000

-- Where the string ends whose content begins at `at`; nil when it does not.
local function end_of_string(body, at)
  while true do
    local quote = body:find('"', at, true)
    if not quote then return nil end
    local before = quote - 1
    while body:byte(before) == 92 do before = before - 1 end
    if (quote - before) % 2 == 1 then return quote end
    at = quote + 1
  end
end

-- Whether JSON's text of a string has half of a surrogate pair (RFC 8259, section 8.2).
local function is_half(text)
  local at = text:find("\\", 1, true)
  while at do
    local high, low = text:match("^\\u[dD]([%x])%x%x()", at)
    if not high then at = at + 2
    elseif not high:find("[89abAB]") or not text:find("^\\u[dD][c-fC-F]%x%x", low) then
      if high:find("[89a-fA-F]") then return true end
      at = low
    else at = low + 6 end
    at = text:find("\\", at, true)
  end
  return false
end

-- The names in `body`, and the path of a string that is half a pair, if there is one; nil where names or strings are not quoted as JSON has it, which
-- the transcoder would take. Where it is not JSON otherwise both mean nothing: the transcoder refuses it.
local function names_of(body)
  local found, bytes, seen, marks = {}, 0, {}, 0
  local escaped, half = body:find("\\u[dD][89a-fA-F]"), nil
  -- Of each level: the path of what holds it, the number of the element, or the name of the field, where it is.
  local paths, numbers, names, depth = {[0] = ""}, {}, {}, 0
  local path, is_name, at = "", false, 1
  while true do
    local mark = body:find('[%[%]{}",\']', at)
    if not mark or marks == MOST_MARKS then break end
    marks = marks + 1
    local kind = body:byte(mark)
    if kind == 39 or is_name and body:find("^%s*[^%s}\"]", at) then return nil end
    at = mark + 1
    if kind == 34 then  -- a string
      local quote = end_of_string(body, at)
      if not quote then break end
      if is_name then
        local name = body:sub(at, quote - 1):gsub("\\u00(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
        if #name > 64 or not name:find("^[%a_][%w_]*$") then name = "?" end
        path, is_name, names[depth] = paths[depth] .. name, false, name
        if not seen[path] and bytes < MOST_BYTES then
          seen[path], bytes = true, bytes + #path + 1
          found[#found + 1] = path
        end
      elseif escaped and not half and is_half(body:sub(at, quote - 1)) then
        half = ""
        for level = 1, depth do
          half = half .. (numbers[level] and "[" .. numbers[level] .. "]" or (half == "" and "" or ".") .. names[level])
        end
      end
      at = quote + 1
    elseif kind == 123 then  -- {
      depth = depth + 1
      paths[depth], numbers[depth], names[depth], is_name = path == "" and "" or path .. ".", nil, "", true
    elseif kind == 91 then  -- [
      depth = depth + 1
      paths[depth], numbers[depth], names[depth], is_name = path == "" and "" or path .. ".", 0, nil, false
    elseif kind == 44 then  -- ,
      if numbers[depth] then numbers[depth] = numbers[depth] + 1
      else is_name = names[depth] ~= nil end
    else  -- } or ]
      if depth > 0 then depth = depth - 1 end
      path = paths[depth + 1] and paths[depth + 1]:gsub("%.$", "") or ""
      is_name = false
    end
  end
  if marks == MOST_MARKS then found[#found + 1] = "?" end
  return table.concat(found, ","), half
end

function envoy_on_request(handle)
  local headers, noted = handle:headers(), handle:streamInfo():dynamicMetadata():get("khesht") or {}
  -- What goes on as it came has no contract to be held to; native calls and gRPC-Web are messages already.
  if noted.openai or (headers:get("content-type") or ""):find("^application/grpc") then return end
  local body = handle:body()
  body = body and body:getBytes(0, body:length()) or ""
  if not body:find("%S") then
    if headers:get(":method") == "PUT" then headers:replace("x-khesht-no-body", "1") end
    return
  end
  local names, half = names_of(body)
  if not names then
    handle:respond({[":status"] = "400"}, "malformed")
    return
  end
  if half then handle:streamInfo():dynamicMetadata():set("khesht", "half", half) end
  if names ~= "" then handle:headers():replace("x-khesht-names", names) end
end
