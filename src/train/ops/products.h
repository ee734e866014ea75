// Matrix products of training. f32 and bf16 on the CPU go to oneDNN: the BLAS that libtorch calls picks its
// kernels by CPU model, and one that does not know the model falls back to a tenth of the speed (OpenBLAS
// 0.3.21 runs SSE3 code on Emerald Rapids). Everything else is at::matmul.
#pragma once
#include <vector>

#include "train/tensor.h"

namespace mneme::train {

/// Whether this CPU multiplies bf16 matrices faster than f32 ones: oneDNN has kernels for them from AVX-512
/// on. Below, factors that shall be bf16 are rounded to it and widened again; libtorch's own bf16 products
/// are far slower there than f32 ones.
bool has_bf16_kernels();

/// x [..., in] times weight [out, in] transposed, plus bias [out] (undefined: none): [..., out] in x's type.
/// bfloat16: both factors are rounded to bf16 and summed in f32, in the gradients too; the gradients have the
/// types of x, weight and bias. Differentiable once.
Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias, bool bfloat16);

/// product() of one x with several weights, whose gradients with respect to x are summed as they are computed
/// instead of by passes over memory. biases: as many as weights, each possibly undefined.
std::vector<Tensor> products(const Tensor& x, const std::vector<Tensor>& weights,
                             const std::vector<Tensor>& biases, bool bfloat16);

/// a [n, rows, inner] times b [n, inner, columns], as at::bmm but f32 factors may be rounded to bf16 first
/// and f32 results of f32 factors come from oneDNN. No gradient: for custom functions.
Tensor batched_product(const Tensor& a, const Tensor& b, bool bfloat16);

/// c = alpha a b + beta c for f32 matrices on the CPU, a [rows, inner], b [inner, columns], c contiguous in
/// its rows; a and b may be transposed views. Runs on one thread inside at::parallel_for, else on all.
void multiply_into(const Tensor& a, const Tensor& b, const Tensor& c, float alpha = 1, float beta = 0);

}  // namespace mneme::train
