"""Pure maths on tensors. Knows no names, files or tables, and imports nothing else of opdlib.

Numerics, the same everywhere:

- Both tensors are upcast to float64 and then subtracted. That is exact for fp16, and for bf16 unless two exponents
  differ by more than 45; every reduction is in float64 too.
- Thresholds are float64 numbers and are never rounded to the dtype of a checkpoint.
- No epsilon in a denominator: what is undefined for a zero tensor is NaN, and says so.
- A share becomes a number of coordinates in one function, `opdlib.metrics.sparsity.count_of`.
"""
