"""One page about pairs of one's own: a single file, made of result folders, that says how to check every number.

`inputs` finds or measures results, `content` takes from them all that a page shows, `page` writes it, `verify` reads it
back and measures again. Only measuring needs torch.
"""
