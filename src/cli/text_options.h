// The text that a verb sends through a model to see what happens inside: -p, -f, --ids, --tokens and --ctx.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "mneme/model.h"
#include "mneme/tokenizer.h"

namespace mneme::cli {

struct TextOptions {
  std::string prompt, file, ids;
  uint64_t tokens = 0;  // at most; 0: all
  uint32_t window = 0;  // 0: window_of() chooses
};
void add_text_options(CLI::App& app, TextOptions& options);

/// Throws UsageError unless one of -p, -f and --ids is given.
void check_text_options(const TextOptions& options);
/// The ids of the text. Throws UsageError for an empty one, Error(invalid_argument) for --ids outside the
/// vocabulary, and what reading a file throws.
std::vector<TokenId> text_ids(const TextOptions& options, const Model& model);
/// Tokens of a window.
uint32_t window_of(const TextOptions& options, const Model& model);
/// What every window begins with; -1: nothing.
TokenId opening_token(const Model& model);

}  // namespace mneme::cli
