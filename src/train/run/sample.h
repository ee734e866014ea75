// A look at what the model writes while it is trained.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "mneme/tokenizer.h"
#include "train/run/run_config.h"
#include "train/run/training.h"

namespace mneme::train {

/// What follows `prompt`, without it: at most SamplesConfig::tokens tokens, ended by an end token or the
/// model's context. Every token is a pass over the whole text, which is fine for a look; `mneme generate` on
/// a checkpoint is the fast way. `touch` gives the rows that tokens int64 [1, length] read. Equal weights and
/// seeds give equal text.
std::string sample_text(const Training& training, const Tokenizer& tokenizer, const SamplesConfig& config,
                        const std::string& prompt, uint64_t seed,
                        const std::function<BatchRows(const Tensor& tokens)>& touch);

}  // namespace mneme::train
