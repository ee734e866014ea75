// Softmax attention over a paged KV cache, blockwise with a running maximum (Milakov & Gimelshein 2018; Dao
// et al. 2022), for one key/value head and all query heads and tokens that share it.
//
// A page holds kPagePositions positions. For each kv head, one after the other:
//   K  [position/16][dim][position%16]   so that a vector is 16 positions of one dimension and a score needs
//   no sum
//                                        across lanes
//   V  [position][dim]
//   int8 only: K scales [position] f32, V scales [position] f32
// `dim` is head_dim rounded up to a multiple of 16, the rest zero. Values are f16 (default), f32, or int8
// with one scale a vector (max|x|/127, or least_scale). Cache memory starts zeroed, so a slot that was never
// written is finite.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mneme {

inline constexpr int64_t kPagePositions = 256;
inline constexpr float kLeastKvScale =
    1e-5f;  // of models whose config asks for int8, as SpikingBrain's W8ASpike
inline constexpr int64_t kAttentionBlock =
    64;  // positions handled between two updates of the running maximum

enum class KvFormat : uint8_t { f16, int8, f32 };

struct KvGeometry {
  KvFormat format = KvFormat::f16;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float least_scale = 0;  // int8: of a vector's scale

  int64_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  int64_t value_bytes() const { return format == KvFormat::f32 ? 4 : format == KvFormat::f16 ? 2 : 1; }
  int64_t k_bytes() const {
    return kPagePositions * padded_dim() * value_bytes();
  }  // of one head; V is as large
  int64_t head_bytes() const { return 2 * k_bytes() + (format == KvFormat::int8 ? 8 * kPagePositions : 0); }
  int64_t page_bytes() const { return kv_heads * head_bytes(); }
};

/// Writes the key and value [head_dim] of one position (inside the page) of one head.
void store_kv(const KvGeometry& geometry, std::byte* page, int64_t kv_head, int64_t position, const float* k,
              const float* v);

/// Reads one key or value back as floats (tests, export).
void load_kv(const KvGeometry& geometry, const std::byte* page, int64_t kv_head, int64_t position, float* k,
             float* v);

/// Scratch of one thread.
struct AttentionScratch {
  std::vector<float> scores, k, v;
  const void* announced = nullptr;  // the keys that the last call began to fetch for the next one
};

/// Running result of a set of queries: softmax(scores) V = acc / l, in units of exp(m).
struct AttentionState {
  float* m;    // [queries], starts at -inf
  float* l;    // [queries], starts at 0
  float* acc;  // [queries, padded_dim], starts at 0
};

struct AttentionArgs {
  KvGeometry geometry;
  int64_t kv_head = 0;
  const std::byte* const* pages =
      nullptr;               // block i holds positions [256 i, 256 i + 256); may be null where invisible
  int64_t page_offset = 0;   // of this layer's page in every block, bytes
  const float* q = nullptr;  // [queries, padded_dim], already scaled, padding zero
  int64_t queries = 0;
  const int64_t* lo = nullptr;  // query i sees positions [lo[i], hi[i]) and [0, min(sinks, hi[i]))
  const int64_t* hi = nullptr;
  int64_t sinks = 0;
  float softcap = 0;
  // A hint, which changes no result: the thread will probably go on with this position and head of the same
  // pages, so that the last block's arithmetic may hide their way from memory. -1: nobody knows.
  int64_t then_position = -1;
  int64_t then_kv_head = 0;
};

/// Adds positions [begin, end) (begin a multiple of kAttentionBlock) to `state`.
void attend(const AttentionArgs& args, int64_t begin, int64_t end, AttentionScratch& scratch,
            const AttentionState& state);

/// out[dim] = (sum_i exp(m_i - M) acc_i) / (sum_i exp(m_i - M) l_i [+ exp(sink - M)]) over `parts` partial
/// states of one query that lie `stride` queries apart, in order. `sink`: learned logit or null.
void merge_attention(const AttentionState& first, int64_t parts, int64_t stride, int64_t padded_dim,
                     int64_t head_dim, const float* sink, float* out);

}  // namespace mneme
