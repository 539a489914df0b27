"""What the contracts can't say: bodies that are not messages, headers, and examples."""

from typing import Any

Schema = dict[str, Any]

ABOUT = """One gateway to chat models: accounts, API keys, chats, usage, and OpenAI's wire format beside.

Send `Authorization: Bearer <access token or API key>`, or an API key as `X-API-Key`. An access token comes from `POST /auth/login`, or here from the \
button *Authorize*. Operations that say so want no credential.

Every failure has the one body of `Error`, or of `OpenAIError` on OpenAI's paths; programs should switch on its `reason`. Any operation may besides answer 408 or 431 when a request is too slow \
or its headers are too large, and 500 for a fault of ours. A field of a body or a parameter of a query that is not known is refused with its name, but on OpenAI's paths, where fields go to the provider and \
parameters are ignored. A parameter without a value is refused, but `page_token`. \
Numbers of 64 bits are strings in JSON. All of this is also gRPC, from the same contracts."""


STREAMED = """Server-sent events, as the HTML standard parses them. The `data` of each is JSON of the schema that `x-itemSchema` gives: what OpenAPI 3.2 \
calls `itemSchema`. A line `: ping` comes whenever nothing else did for 15 seconds; it is a comment, and no event."""
# The whole of a stream, which is no JSON: generators that know no streams give its text.
EVENTS: Schema = {"type": "string", "description": "Server-sent events."}


def event(data: Schema) -> Schema:
    """The schema of one server-sent event with `data`, as OpenAPI 3.2 has it for `itemSchema`."""
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def as_json(schema: Schema) -> Schema:
    """The schema of a text that holds JSON of `schema`."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def component(name: str) -> Schema:
    """A reference to the schema of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


# An object of any fields: without the word, openapi-typescript takes it for one of none.
_OPEN: Schema = {"type": "object", "additionalProperties": True}
_COMPLETION: Schema = {
    "type": "object",
    "description": "A `chat.completion` of OpenAI's API.",
    "properties": {
        "id": {"type": "string"},
        "object": {"type": "string", "const": "chat.completion"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": _OPEN},
        "usage": {**_OPEN, "type": ["object", "null"]},
    },
    "required": ["id", "object", "choices"],
    "additionalProperties": True,
}
# Schemas of what is no message, by name.
SCHEMAS: dict[str, Schema] = {
    # Forms of RFC 6749, sections 4.3.2 and 6.
    "IssueTokenRequest": {
        "description": "Either `username` and `password`, or `grant_type=refresh_token` and `refresh_token`. Other fields are passed over.",
        "anyOf": [component("PasswordGrant"), component("RefreshTokenGrant")],
    },
    "PasswordGrant": {
        "type": "object",
        "description": "Starts a session.",
        "properties": {
            "grant_type": {
                "type": "string",
                "enum": ["password"],
                "description": "May be left out.",
            },
            "username": {
                "type": "string",
                "minLength": 1,
                "maxLength": 254,
                "description": "A username or an email.",
            },
            "password": {"type": "string", "minLength": 1, "maxLength": 256, "format": "password"},
        },
        "required": ["username", "password"],
    },
    "RefreshTokenGrant": {
        "type": "object",
        "description": "Goes on with a session.",
        "properties": {
            "grant_type": {"type": "string", "enum": ["refresh_token"]},
            "refresh_token": {
                "type": "string",
                "minLength": 1,
                "maxLength": 200,
                "description": "The one last given.",
            },
        },
        "required": ["grant_type", "refresh_token"],
    },
    "ChatCompletionRequest": {
        "type": "object",
        "description": "As of OpenAI's API. Fields that are not listed go to the provider as they are.",
        "properties": {
            "model": {"type": "string", "description": "Id or alias of the model."},
            "messages": {"type": "array", "minItems": 1, "items": _OPEN},
            "stream": {"type": "boolean", "description": "Unset, the answer comes whole."},
            "max_tokens": {"type": ["integer", "null"]},
            "temperature": {"type": ["number", "null"]},
        },
        "required": ["model", "messages"],
        "additionalProperties": True,
    },
    "ChatCompletion": _COMPLETION,
    "ChatCompletionChunk": {
        **_COMPLETION,
        "description": "A `chat.completion.chunk` of OpenAI's API.",
        "properties": _COMPLETION["properties"]
        | {"object": {"type": "string", "const": "chat.completion.chunk"}},
    },
}
_COMPLETION_EVENTS: Schema = event(
    {
        "description": "With `stream`. The last is `[DONE]`, or holds `error`.",
        "anyOf": [
            {"type": "string", "const": "[DONE]"},
            as_json({"anyOf": [component("ChatCompletionChunk"), component("OpenAIError")]}),
        ],
    }
)

# Of RPCs whose request or response is an HttpBody: content types and their schemas.
REQUESTS: dict[str, dict[str, Schema]] = {
    "IssueToken": {"application/x-www-form-urlencoded": component("IssueTokenRequest")},
    "CreateChatCompletion": {"application/json": component("ChatCompletionRequest")},
}
RESPONSES: dict[str, dict[str, Schema]] = {
    "StreamText": {"text/plain": {"type": "string", "description": "The reply, as it is made."}},
    "ExportUsage": {
        "text/csv": {"type": "string", "description": "Records; the first line names the columns."}
    },
    "CreateChatCompletion": {
        "application/json": component("ChatCompletion"),
        "text/event-stream": _COMPLETION_EVENTS,
    },
}
# Answers other than Error: messages by RPC and status.
OTHER_ANSWERS = {("GetHealth", 503): "khesht.chat.v1.DegradedHealth"}

_ERROR_FIELDS: Schema = {
    "code": {"type": "integer", "description": "The HTTP status."},
    "status": {"type": "string", "description": "Name of the gRPC status."},
    "reason": {"type": "string", "description": "What programs should switch on."},
    "message": {"type": "string", "description": "What happened, for people."},
    "type": {"type": "string", "description": "Kind of error as OpenAI names it."},
    "details": {
        "type": "array",
        "items": _OPEN,
        "description": "As in google.rpc.Status; `field_violations` name wrong fields.",
    },
    "request_id": {"type": "string", "description": "As in the header X-Request-Id."},
}


def _error(text: str, fields: Schema) -> Schema:
    error = {"type": "object", "properties": fields, "required": list(fields)}
    return {
        "type": "object",
        "description": text,
        "properties": {"error": error},
        "required": ["error"],
    }


ERROR: Schema = {
    **_error("The body of every failure, but on OpenAI's paths.", _ERROR_FIELDS),
    "examples": [
        {
            "error": {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "reason": "RATE_LIMITED",
                "message": "60 calls a minute are spent; wait 3 s",
                "type": "rate_limit_error",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "3s"}
                ],
                "request_id": "5f2b0a4e-6a3d-4d0e-9d57-0d4b1f9c2a11",
            }
        }
    ],
}
_NAME_OR_NULL = ["string", "null"]
OPENAI_ERROR: Schema = _error(
    "The body of every failure on OpenAI's paths, as its packages read it.",
    _ERROR_FIELDS
    | {
        "code": {
            "type": _NAME_OR_NULL,
            "description": "Of OpenAI's codes, or the provider's own: `invalid_api_key`, `context_length_exceeded`.",
        },
        "param": {"type": _NAME_OR_NULL, "description": "The field to blame."},
    },
)

SECURITY_SCHEMES: dict[str, Schema] = {
    "password": {
        "type": "oauth2",
        "description": "Log in with a username or an email, and a password.",
        "flows": {
            "password": {"tokenUrl": "/auth/token", "refreshUrl": "/auth/token", "scopes": {}}
        },
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token or an API key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}

# Headers of requests, besides those of credentials.
ASKED: dict[str, Schema] = {
    "Idempotency-Key": {
        "description": "A name that makes the call safe to repeat: for 24 hours, a repeat with the same body gets the reply of the first. \
A `request_id` in the body wins.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[!-~]*$"},
    },
    "X-Early-Headers": {
        "description": "`true` lets the headers of a stream go out at once, before the model says anything: what fails from then on is the last event. \
Any other value is as none.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "description": "The `seq` of the last event that is known. It wins over `after_seq`.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    },
    "X-Provider-Key": {
        "description": "The caller's own key of the model's provider. It is used for this call, and neither stored nor logged.",
        "schema": {"type": "string", "format": "password"},
    },
}
# Headers of answers.
HEADERS: dict[str, Schema] = {
    "X-Request-Id": {"description": "Id of this call, also in logs.", "schema": {"type": "string"}},
    "X-Generation-Id": {
        "description": "UUID of the generation. With a failure, only where one had begun.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "X-Khesht-Warning": {
        "description": "`soft-budget-exceeded` once more was spent than a soft budget, `reply-limited-by-budget` where no more money was left, \
`messages-left-out=N` where the history was longer than the model reads. Several are parted by commas.",
        "schema": {"type": "string"},
    },
    "X-Khesht-Model": {
        "description": "The id or alias that was asked for; `model` in the answer is what the provider calls it.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": 'What is left of each limit, and the seconds until it is whole: `"per-minute";r=59;t=1, "tokens-per-minute";r=900;t=6`.',
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": 'The limits, that of tokens where there is one: `"per-minute";q=60;w=60, "tokens-per-minute";q=1000;w=60`.',
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait, where known.",
        "schema": {"type": "string", "pattern": r"^\d+$"},
    },
    "Retry-After-Ms": {
        "description": "The same in milliseconds.",
        "schema": {"type": "string", "pattern": r"^\d+$"},
    },
    "X-Should-Retry": {
        "description": "`false` where the same call would fail again.",
        "schema": {"type": "string", "const": "false"},
    },
    "OpenAI-Processing-Ms": {
        "description": "Milliseconds until the answer began.",
        "schema": {"type": "string", "pattern": r"^\d+$"},
    },
} | {
    f"X-RateLimit-{what}-{kind}": {
        "description": f"{text} of the limit of {kind.lower()} a minute, where there is one.",
        "schema": {"type": "string"},
    }
    for kind in ("Requests", "Tokens")
    for what, text in (
        ("Limit", "All"),
        ("Remaining", "What is left"),
        ("Reset", "Seconds until all is there again, as `6s`,"),
    )
}

_ID, _TIME = "0198c2f4-7d7e-7c55-9a31-2f0f4c1f6b11", "2026-03-01T12:00:00Z"
_TOKENS = {
    "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
    "token_type": "bearer",
    "expires_in": 900,
    "refresh_token": "rt_3q2-7wAAAAB",
}
_REPLY = {
    "id": _ID,
    "chat_id": _ID,
    "message": "Hello Ada",
    "model": "echo",
    "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    "finish_reason": "stop",
    "generation_id": _ID,
}
_ITEM = {
    "name": "Sample Item",
    "description": "This is a sample item",
    "price": 29.99,
    "is_available": True,
}

# A request and an answer of RPCs; None where there is nothing to show.
EXAMPLES: dict[str, tuple[Any, Any]] = {
    "Register": (
        {"username": "ada", "email": "ada@example.com", "password": "password123"},
        {
            "id": _ID,
            "username": "ada",
            "email": "ada@example.com",
            "role": "user",
            "created_at": _TIME,
        },
    ),
    "Login": ({"email": "ada@example.com", "password": "password123"}, _TOKENS),
    "IssueToken": ({"username": "ada", "password": "password123"}, _TOKENS),
    "RefreshToken": ({"refresh_token": "rt_3q2-7wAAAAB"}, _TOKENS),
    "GetMe": (
        None,
        {
            "id": _ID,
            "username": "ada",
            "email": "ada@example.com",
            "role": "user",
            "created_at": _TIME,
        },
    ),
    "CreateReply": ({"message": "Hello Ada", "model": "echo"}, _REPLY),
    "StreamReply": ({"message": "Hello Ada", "model": "echo"}, None),
    "CreateChatCompletion": (
        {"model": "echo", "messages": [{"role": "user", "content": "Hello Ada"}]},
        None,
    ),
    "CreateChat": (
        {"title": "Names"},
        {"id": _ID, "title": "Names", "created_at": _TIME, "updated_at": _TIME},
    ),
    "CreateApiKey": (
        {"name": "My App Key", "rate_limit_per_minute": 20, "monthly_budget_usd": 25},
        None,
    ),
    "RotateApiKey": ({"grace_period_seconds": 3600}, None),
    "StoreProviderCredential": (
        {"provider": "openai", "api_key": "sk-this-is-only-an-example"},
        {
            "id": _ID,
            "provider": "openai",
            "last_four": "mple",
            "version": 1,
            "created_at": _TIME,
        },
    ),
    "CreateItem": (_ITEM, {"id": 1, **_ITEM}),
    "ReplaceItem": (_ITEM, {"id": 1, **_ITEM}),
    "GetHealth": (
        None,
        {
            "status": "healthy",
            "services": {name: "healthy" for name in ("auth", "chat", "items", "keys", "usage")},
            "providers": {"echo": "healthy", "openai": "configured"},
        },
    ),
}
