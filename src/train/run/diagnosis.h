// Where numbers stopped being numbers.
#pragma once
#include <string>

#include "train/run/training.h"

namespace mneme::train {

/// Names the first place of a pass whose loss is not finite, in the order in which it computes: a parameter,
/// a table, the output of a layer (by running the model layer by layer), or else the logits. Takes the tokens
/// [batch, length] and rows of that pass. "parameter blk.2.ffn_up.weight", "the output of layer 3".
std::string first_not_finite(const Training& training, const Tensor& tokens, const BatchRows& rows,
                             const PassOptions& options);
/// The first gradient that is not finite, from the head back to the embedding, then those of the rows of
/// memory tables: "the gradient of blk.0.attn_q.weight". "" if all are.
std::string first_gradient_not_finite(const Training& training, const BatchRows& rows);

}  // namespace mneme::train
