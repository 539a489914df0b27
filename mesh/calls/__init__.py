"""What happens around every RPC, outermost first.

observe     one log line, with the request's id and how it ended
errors      whatever is raised becomes one status, one envelope
deadline    the caller's, never more than ours, less 20 ms for the way back
peers       the calling process must be on the method's list
principal   who calls: by access token, or by API key through keys.Authorize
validate    the limits that the contract states

`chain.Chain` is the interceptor that does them in this order.
"""
