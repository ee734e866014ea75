// Where numbers stopped being numbers.
#pragma once
#include <string>

#include "train/run/training.h"

namespace mneme::train {

/// Names the first place that is not finite, in the order in which a step computes: a parameter, a table, the
/// output of a layer (by running the model layer by layer), the loss, then gradients from the head back to
/// the embedding. Called after a step whose loss or gradient is not finite, with its tokens [batch, length]
/// and rows. "parameter blk.2.ffn_up.weight", "the output of layer 3", "the gradient of blk.0.attn_q.weight".
std::string first_not_finite(const Training& training, const Tensor& tokens, const BatchRows& rows,
                             const PassOptions& options);

}  // namespace mneme::train
