// What decides the rows of an Engram table and what a layer does with them: plain data, two structs. A table
// (EngramTableConfig) turns token ids into row ids and says how a row is stored; a module
// (EngramModuleConfig) is one layer's gate on such a table. Everything in which the published versions of
// Engram differ is a field here, and nothing else asks which version a model follows. docs/config.md is their
// JSON schema.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mneme {

/// How a row lies in the file: one contiguous record, its values and then their scales.
enum class RowFormat {
  f32,
  bf16,
  int8,          // values, then one f32 scale of the whole row
  fp8_e4m3_e8m0  // E4M3 values, then one E8M0 byte per 32 of them: 264 bytes for 256 values
};

struct EngramTableConfig {
  /// Where multipliers come from: NumPy's default_rng(seed + 10007 * layer), or splitmix64 (Qwen4Exp).
  enum class Hash { pcg64, splitmix64 };
  /// Look-back across documents: none = one stream; reset = a document start ends it (older tokens read as
  /// pad); eos = an end-of-sequence token met while walking back reads, with everything older, as itself.
  enum class Boundary { none, reset, eos };

  std::string file;  // the pack, relative to the model's file; empty: given by --memory
  Hash hash = Hash::pcg64;
  uint64_t seed = 0;
  uint32_t compressed_vocab = 0;    // classes of the token map; with raw_ids the tokenizer's vocabulary
  bool raw_ids = false;             // tokens are hashed as they are, there is no token map
  int64_t pad_id = 0;               // of a class; stands for what lies before the start
  uint32_t max_ngram = 3;           // orders 2..max_ngram
  uint32_t heads = 8;               // of each order
  uint32_t head_dim = 64;           // values in a row
  std::vector<uint64_t> base_rows;  // [max_ngram - 1]: the primes of an order are the next ones from here
  std::vector<uint32_t> layer_ids;  // in the order in which primes were given out; 0-based as published
  uint64_t rows_multiple = 1;       // the rows of a layer are padded up to a multiple of this (Qwen4Exp: 128)
  Boundary boundary = Boundary::none;
  int64_t boundary_id = -1;  // reset: first token of a document; eos: the token that ends one (a class id)
  RowFormat format = RowFormat::bf16;

  /// Rows that one token reads in one layer.
  uint32_t rows_per_token() const noexcept { return (max_ngram - 1) * heads; }
  /// d_e: length of the concatenated rows.
  uint32_t embedding_dim() const noexcept { return rows_per_token() * head_dim; }
  bool operator==(const EngramTableConfig&) const = default;
};

/// Depthwise causal convolution over the gated values: y = u + silu(conv(rmsnorm(u))).
struct EngramConvConfig {
  uint32_t kernel = 4;
  uint32_t dilation = 3;
  double eps = 1e-5;
  bool operator==(const EngramConvConfig&) const = default;
};

/// One layer's use of a table: gate alpha = sigmoid(f(<rms(k), rms(x)> / sqrt(d))), u = alpha * v, added to
/// the residual stream before the layer's mixer.
struct EngramModuleConfig {
  enum class SignOfZero { zero, copysign };  // f(0) = 0, or +-sqrt(1e-6) by the sign bit
  std::string table;                         // a name in ModelConfig's tables
  uint32_t layer_id = 0;                     // one of the table's layer_ids
  bool signed_sqrt = true;                   // f(g) = sign(g) * sqrt(max(|g|, 1e-6)), else f(g) = g
  SignOfZero sign0 = SignOfZero::copysign;
  bool bias = false;         // of the key and value projections
  double eps = 1e-6;         // of the two norms of the gate
  double norm_offset = 0.0;  // added to every norm weight of the module (Qwen4Exp: 1)
  std::optional<EngramConvConfig> conv;
  bool operator==(const EngramModuleConfig&) const = default;
};

}  // namespace mneme
