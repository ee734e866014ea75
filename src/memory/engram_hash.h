// From token classes to table rows: the deterministic half of Engram. Everything is derived from an
// EngramTableConfig, in integers, and is the same on every machine:
//
//   multipliers  one odd number for each position of the window and layer, so small that class * multiplier
//   stays
//                below 2^63;
//   primes       one modulus for each (layer, order, head), all different, the next ones from the order's
//   base; rows         mix_n = s_0 m_0 ^ s_1 m_1 ^ ... ^ s_{n-1} m_{n-1}, where s_k is the class k positions
//   back (s_0 the
//                newest); head h of order n reads row mix_n mod p[n][h] of its own range of rows.
//
// A table's rows are numbered in 64 bits: layers in the order of layer_ids, in each the orders, in each the
// heads; a layer's rows are padded to rows_multiple. Source: arXiv 2601.07372 section 2.2 with the constants
// of the authors' demonstration; the splitmix64 variant is that of Qwen's per-layer embeddings.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mneme/engram_config.h"

namespace mneme {

/// A token's class, or negative for a position that has none (an image, say).
using TokenClass = int32_t;

/// Immutable and thread-safe.
class EngramHash {
 public:
  /// Derives all constants. Throws what validate() throws.
  explicit EngramHash(const EngramTableConfig& config);

  const EngramTableConfig& config() const noexcept { return config_; }
  size_t layers() const noexcept { return layers_.size(); }
  /// Place of a layer id in config().layer_ids. Throws Error(not_found).
  size_t layer_index(uint32_t layer_id) const;

  /// [max_ngram], the newest token's first.
  std::span<const uint64_t> multipliers(size_t layer) const noexcept { return layers_[layer].multipliers; }
  /// [orders * heads], order-major.
  std::span<const uint64_t> primes(size_t layer) const noexcept { return layers_[layer].primes; }
  /// [orders * heads]: the table's row number of each head's row 0.
  std::span<const uint64_t> offsets(size_t layer) const noexcept { return layers_[layer].offsets; }
  uint64_t prime_sum(size_t layer) const noexcept { return layers_[layer].prime_sum; }
  uint64_t first_row(size_t layer) const noexcept { return layers_[layer].offsets.front(); }
  /// Rows of a layer, padding included.
  uint64_t layer_rows(size_t layer) const noexcept { return layers_[layer].rows; }
  /// Rows of the whole table.
  uint64_t rows() const noexcept { return rows_; }

  /// Classes that a window may look back on: max_ngram - 1.
  size_t look_back() const noexcept { return config_.max_ngram - 1; }

  /// What each position sees: out[i * max_ngram + k] is the class k positions before ids[i], with the rule
  /// for borders applied. `previous`: the classes before ids[0], oldest first, any number of them (the last
  /// look_back() count; fewer means that the sequence starts there). Cutting a sequence into runs that pass
  /// on their last classes changes nothing. A position that is missing or negative reads, with all older
  /// ones, as pad_id (with Boundary::eos as boundary_id). Throws Error(invalid_argument) for a class outside
  /// the vocabulary or an `out` of another size.
  void contexts(std::span<const TokenClass> previous, std::span<const TokenClass> ids,
                std::span<TokenClass> out) const;
  /// The table rows of contexts made by contexts(): out[i * rows_per_token + order * heads + head].
  void rows_of(size_t layer, std::span<const TokenClass> contexts, std::span<uint64_t> out) const;
  /// Both at once.
  std::vector<uint64_t> rows_of(size_t layer, std::span<const TokenClass> previous,
                                std::span<const TokenClass> ids) const;

 private:
  struct Layer {
    std::vector<uint64_t> multipliers, primes, offsets;
    uint64_t prime_sum = 0, rows = 0;
  };
  void derive_multipliers();
  void derive_primes();
  void number_rows();

  EngramTableConfig config_;
  std::vector<Layer> layers_;
  uint64_t rows_ = 0;
};

/// Exact for every 64-bit number (Miller-Rabin with the first twelve primes as bases).
bool is_prime(uint64_t number) noexcept;

}  // namespace mneme
