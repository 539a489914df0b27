"""Wire formats, one module each: encode a request, feed bytes, get parts. Plain calls, without any I/O."""
