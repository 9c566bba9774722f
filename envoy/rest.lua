-- REST's side of every answer: status, errors and bare arrays. It runs after the transcoder on the way back; what kind of
-- RPC it was stands in the metadata of the RPC's route, which server/envoy.py made from the descriptors.

-- gRPC status -> HTTP status, name and reason of an error without x-error-body: one that gRPC's own machinery made.
local FAILURES = {
  ["4"] = {504, "DEADLINE_EXCEEDED", "TIMEOUT"},
  ["12"] = {501, "UNIMPLEMENTED", "METHOD_NOT_FOUND"},
  ["14"] = {503, "UNAVAILABLE", "UNAVAILABLE"},
}
local FAULT = {500, "INTERNAL", "INTERNAL"}
-- Such as text in a query that is not UTF-8, which only the server sees.
local UNREADABLE = {400, "INVALID_ARGUMENT", "MALFORMED_REQUEST"}

-- What only Envoy and gRPC clients need.
local INTERNAL = {
  "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-accept-encoding", "grpc-encoding", "x-error-body",
  "x-http-code",
}

local function strip(fields)
  for _, name in ipairs(INTERNAL) do
    fields:remove(name)
  end
end

local function machinery_error(grpc_status, grpc_message)
  local unreadable = grpc_message:find("DecodeError", 1, true) and UNREADABLE
  local code, status, reason = unpack(unreadable or FAILURES[grpc_status] or FAULT)
  local message = status:lower():gsub("_", " ")
  local body = '{"error":{"code":%d,"status":"%s","message":"%s","reason":"%s","details":[]}}'
  return tostring(code), body:format(code, status, message, reason)
end

local function answer_error(handle, grpc_status)
  -- Both come in the trailers when the handler had sent its headers before it failed.
  local said = handle:headers()
  if said:get("x-error-body") == nil then
    handle:body(true)
    said = handle:trailers() or handle:headers()
  end
  local code, error_body = said:get("x-http-code"), said:get("x-error-body")
  if error_body == nil then
    code, error_body = machinery_error(grpc_status, said:get("grpc-message") or "")
  end
  handle:body(true):setBytes(error_body)
  local headers = handle:headers()
  strip(headers)
  headers:replace(":status", code)
  headers:replace("content-type", "application/json")
  headers:remove("x-next-page-token")
  headers:remove("link")
end

local function answer_list(handle, field)
  -- The transcoder prints the fields in their order: {"<field>":[…],"next_page_token":"…"}.
  local body = handle:body()
  local text = body:getBytes(0, body:length())
  local first = #'{"":' + #field + 1
  local last = text:find('],"next_page_token":"[^"]*"}$')
  body:setBytes(text:sub(first, last))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local native = (headers:get("content-type") or ""):sub(1, 16) == "application/grpc"
  if native and headers:get(":status") == "200" then
    local exact_status = headers:get("x-grpc-status")
    if exact_status ~= nil then
      headers:replace("grpc-status", exact_status)
      headers:remove("x-grpc-status")
    end
    return
  end

  local grpc_status = headers:get("grpc-status")
  if grpc_status ~= nil and grpc_status ~= "0" then
    answer_error(handle, grpc_status)
    return
  end

  strip(headers)
  -- Known from the route, so that the server need not send its headers apart from its answer.
  if handle:metadata():get("created") and headers:get(":status") == "200" then
    headers:replace(":status", "201")
  end
  local listed = handle:metadata():get("listed")
  if listed ~= nil and headers:get(":status") == "200" then
    answer_list(handle, listed)
  end
end
