"""How providers are asked: over the network, as often as is good for them, in the wire formats of `codecs`; no prices."""
