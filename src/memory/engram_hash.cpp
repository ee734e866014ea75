#include "memory/engram_hash.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <unordered_set>

#include "core/checked.h"
#include "core/random.h"
#include "memory/engram_config.h"

namespace mneme {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr uint64_t kLayerStride = 10007;           // between the seeds of two layers
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;  // splitmix64's increment

uint64_t power_mod(uint64_t base, uint64_t exponent, uint64_t modulus) noexcept {
  uint64_t result = 1;
  for (base %= modulus; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = static_cast<uint64_t>(Wide{result} * base % modulus);
    base = static_cast<uint64_t>(Wide{base} * base % modulus);
  }
  return result;
}

// One step of Steele, Lea and Flood's generator from state `value`.
uint64_t splitmix64(uint64_t value) noexcept {
  value += kGolden;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

}  // namespace

bool is_prime(uint64_t number) noexcept {
  constexpr uint64_t kBases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
  if (number < 2) return false;
  for (const uint64_t base : kBases)
    if (number % base == 0) return number == base;
  const int twos = std::countr_zero(number - 1);
  for (const uint64_t base : kBases) {
    uint64_t x = power_mod(base, (number - 1) >> twos, number);
    if (x == 1 || x == number - 1) continue;
    bool composite = true;
    for (int i = 1; i < twos && composite; ++i) {
      x = static_cast<uint64_t>(Wide{x} * x % number);
      composite = x != number - 1;
    }
    if (composite) return false;
  }
  return true;
}

EngramHash::EngramHash(const EngramTableConfig& config) : config_(config), layers_(config.layer_ids.size()) {
  validate(config_, "table");
  derive_multipliers();
  derive_primes();
  number_rows();
}

size_t EngramHash::layer_index(uint32_t layer_id) const {
  const auto& ids = config_.layer_ids;
  const auto found = std::find(ids.begin(), ids.end(), layer_id);
  require(found != ids.end(), ErrorCode::not_found, "the memory table has no layer {}; it has {}", layer_id,
          fmt::join(ids, ", "));
  return static_cast<size_t>(found - ids.begin());
}

void EngramHash::derive_multipliers() {
  constexpr uint64_t kLargest = (uint64_t{1} << 63) - 1;
  // Half of what a multiplier may be: doubled and made odd it still fits.
  const uint64_t half = std::max<uint64_t>(1, kLargest / config_.compressed_vocab / 2);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const uint64_t seed = config_.seed + kLayerStride * config_.layer_ids[l];
    Pcg64 random(seed);
    for (uint64_t i = 0; i < config_.max_ngram; ++i) {
      const uint64_t draw = config_.hash == EngramTableConfig::Hash::pcg64
                                ? random.below(half)
                                : splitmix64(seed + kGolden * (i + 1)) % half;
      layers_[l].multipliers.push_back(2 * draw + 1);
    }
  }
}

void EngramHash::derive_primes() {
  std::unordered_set<uint64_t> used;
  // All primes from a base up to the last one given out for it are taken: go on from there.
  std::unordered_map<uint64_t, uint64_t> reached;
  for (Layer& layer : layers_)
    for (const uint64_t base : config_.base_rows) {
      uint64_t& candidate = reached.try_emplace(base, base - 1).first->second;
      for (uint32_t head = 0; head < config_.heads; ++head) {
        do ++candidate;
        while (!is_prime(candidate) || used.contains(candidate));
        used.insert(candidate);
        layer.primes.push_back(candidate);
        layer.prime_sum += candidate;
      }
    }
}

void EngramHash::number_rows() {
  for (Layer& layer : layers_) {
    const uint64_t first = rows_;
    for (const uint64_t prime : layer.primes) {
      layer.offsets.push_back(rows_);
      rows_ = checked_add(rows_, prime, "rows of a memory table");
    }
    layer.rows = (rows_ - first + config_.rows_multiple - 1) / config_.rows_multiple * config_.rows_multiple;
    rows_ = checked_add(first, layer.rows, "rows of a memory table");
  }
}

void EngramHash::contexts(std::span<const TokenClass> previous, std::span<const TokenClass> ids,
                          std::span<TokenClass> out) const {
  using Boundary = EngramTableConfig::Boundary;
  const size_t window = config_.max_ngram;
  require(out.size() / window == ids.size() && out.size() % window == 0, ErrorCode::invalid_argument,
          "{} contexts of {} classes do not fill a buffer of {}", ids.size(), window, out.size());
  const auto border = static_cast<TokenClass>(config_.boundary_id);
  const TokenClass fill =
      config_.boundary == Boundary::eos ? border : static_cast<TokenClass>(config_.pad_id);
  for (const TokenClass id : ids)
    require(id < 0 || static_cast<uint32_t>(id) < config_.compressed_vocab, ErrorCode::invalid_argument,
            "token class {} is outside the table's {} classes", id, config_.compressed_vocab);
  previous = previous.last(std::min(previous.size(), look_back()));
  for (size_t t = 0; t < ids.size(); ++t) {
    TokenClass* const seen = out.data() + t * window;
    bool ended = false;  // everything older reads as `fill`
    for (size_t k = 0; k < window; ++k) {
      const bool missing = k > t + previous.size();
      const TokenClass id = missing ? -1 : k <= t ? ids[t - k] : previous[previous.size() - (k - t)];
      ended = ended || id < 0;
      if (config_.boundary == Boundary::eos && k > 0) ended = ended || id == border;
      seen[k] = ended ? fill : id;
      if (config_.boundary == Boundary::reset) ended = ended || id == border;
    }
  }
}

void EngramHash::rows_of(size_t layer, std::span<const TokenClass> contexts, std::span<uint64_t> out) const {
  const size_t window = config_.max_ngram, count = contexts.size() / window;
  require(contexts.size() == count * window && out.size() == count * config_.rows_per_token(),
          ErrorCode::invalid_argument, "{} classes of contexts do not give {} row ids", contexts.size(),
          out.size());
  const Layer& l = layers_[layer];
  uint64_t* to = out.data();
  for (size_t t = 0; t < count; ++t) {
    const TokenClass* const seen = contexts.data() + t * window;
    uint64_t mix = static_cast<uint64_t>(seen[0]) * l.multipliers[0];
    size_t at = 0;
    for (size_t k = 1; k < window; ++k) {
      mix ^= static_cast<uint64_t>(seen[k]) * l.multipliers[k];
      for (uint32_t head = 0; head < config_.heads; ++head, ++at) *to++ = l.offsets[at] + mix % l.primes[at];
    }
  }
}

std::vector<uint64_t> EngramHash::rows_of(size_t layer, std::span<const TokenClass> previous,
                                          std::span<const TokenClass> ids) const {
  std::vector<TokenClass> seen(ids.size() * config_.max_ngram);
  contexts(previous, ids, seen);
  std::vector<uint64_t> out(ids.size() * config_.rows_per_token());
  rows_of(layer, seen, out);
  return out;
}

}  // namespace mneme
