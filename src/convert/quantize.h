// `mneme quantize`: a checkpoint written again with another number format, as a GGUF file or as a Hugging
// Face folder. Weights stream through memory a few megabytes at a time; the output appears under its name
// whole or not at all.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "mneme/model_config.h"

namespace mneme {

enum class ModelFormat { automatic, gguf, hugging_face };

struct QuantizeOptions {
  /// Of matrices: q8_0, q4_0, q4_1 (GGUF only), f16, bf16, f32; "" leaves each as it is stored (a folder
  /// takes the embedding's). Norms and biases become F32.
  std::string type = "q8_0";
  bool pure = false;  // q4_0, q4_1: the embedding and the output head too, which otherwise become Q8_0
  ModelFormat format = ModelFormat::automatic;  // a folder if `out` is one or ends with '/', else GGUF
  int threads = 0;                              // 0: one per core
  bool copy_tables = false;  // memory tables are copied beside the output, which then names the copies
  std::vector<ActivationPolicy> activation = {};  // one a layer, instead of those of `in`; empty: as they are
  /// Texts for a GGUF file's metadata, by key ("general.license"); they replace what `in` says.
  std::vector<std::pair<std::string, std::string>> notes;
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of the output; may throw to stop
};

struct QuantizeResult {
  uint64_t bytes_in = 0, bytes_out = 0;
};

/// Reads a GGUF file or a Hugging Face folder and writes the other or the same. RoPE row order, norm offsets,
/// names, config and tokenizer are translated, so that other programs read the result rightly; what a
/// standard architecture cannot say stands in "mneme.config" (GGUF) or "mneme_config" (config.json). Throws
/// Error: invalid_argument (unknown type, IN is OUT, a folder with a quantized type or notes, a note whose
/// key does not begin with "general." or that Mneme writes itself), io (no space, cannot write), corrupt (a
/// weight that is not finite, by tensor), and what opening `in` throws.
QuantizeResult quantize_model(const fs::path& in, const fs::path& out, const QuantizeOptions& options);

/// Throws what quantize_model would say of its arguments before it writes: for work that ends with it.
void check_quantize(const fs::path& in, const fs::path& out, const QuantizeOptions& options);

}  // namespace mneme
