"""The page on subnetworks: training inside a mask, and what two runs changed in common.

Start with `masked`: the runs inside masks, over seeds and on the way. `compared` sets masks against full OPD and each
other, `overlap` holds what runs share beside chance of three kinds; `written` makes text of their tables. What the
paper says of both is in `opdlib.claims`.
"""
