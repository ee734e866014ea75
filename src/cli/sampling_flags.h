// The sampling options of verbs that generate text.
#pragma once
#include <CLI/CLI.hpp>

#include "mneme/sampling.h"

namespace mneme::cli {

/// --temp, --top-k, --top-p, --min-p, --typical, the penalties, --logit-bias and --seed; `options` holds the
/// defaults.
struct SamplingFlags {
  SamplingOptions options;
  std::vector<std::string> logit_bias;  // "ID:VALUE"
};
void add_sampling_options(CLI::App& app, SamplingFlags& flags);
/// Throws UsageError for a malformed --logit-bias, Error(invalid_argument) for a value out of range.
SamplingOptions sampling_options(const SamplingFlags& flags);

}  // namespace mneme::cli
