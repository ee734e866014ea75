// What a pass of a model is made of: multiply-adds and bytes, counted from a config and the types of its
// weights, so that they are known before anything is loaded or run.
//
// Counted are products of weights, the attention over positions (or the update of a recurrence's state), and
// the rows of memory tables. A multiply-add is one multiplication and one addition. Left out as small: norms,
// activations, rotary angles, softmax, the choice of a sparse mixer's blocks but for its products with mean
// keys, sampling. Bytes are those that come from memory: weights in the layout that kernels read
// (simd/packed_matrix.h, stripes.h), keys and values, states, rows; activations stay in the caches. Bytes of
// the cache are counted by cost/traffic.h and nowhere else.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/model.h"
#include "mneme/session.h"
#include "model/model_impl.h"

namespace mneme {

/// Where the work is: `attention` is the mixer with its projections, `memory` the Engram modules with theirs.
enum class CostPart : uint8_t { attention, feed_forward, memory, head };
inline constexpr size_t kCostParts = 4;
inline constexpr std::array<CostPart, kCostParts> kAllCostParts{CostPart::attention, CostPart::feed_forward,
                                                                CostPart::memory, CostPart::head};
std::string_view to_string(CostPart part) noexcept;  // "attention", "feed_forward", ...

/// A weight matrix as the engine would hold it, without its values.
struct WeightShape {
  std::string name;  // canonical, without ".weight": "blk.3.attn_q"
  CostPart part = CostPart::head;
  size_t layer = 0;
  std::string projection;  // as `mneme spikes` names it: "q", "1.o", "gate"; empty: none of a layer's
  PackedMatrix w;          // data is null
  Linear::Input input = Linear::Input::floats;
  double copies = 1;       // matrices of this shape that the model holds: experts
  double used = 1;         // of them that a token is multiplied with
  double active = 1;       // share of inputs that fire, where inputs are spikes
  bool looked_up = false;  // rows of it are copied, nothing is multiplied: the embedding of an untied model
  uint64_t bytes() const;  // of all copies
  double values() const { return static_cast<double>(w.rows) * static_cast<double>(w.cols); }
  /// Whether a decoding pass leaves the columns of silent inputs where they are.
  bool event_driven() const;
  /// Of one token at decode.
  double decode_macs() const { return values() * used * (event_driven() ? active : 1); }
  double decode_bytes() const;
  /// Copies that a pass over `rows` tokens reads: of experts those that some token chooses, if tokens choose
  /// apart and evenly. An estimate where a pass has several tokens.
  double touched(double rows) const;
};

/// The part of columns that a list of events holds when a share `active` of the inputs fires, each by itself:
/// groups of 4 within blocks of 32 (simd/spike.h).
double listed_share(double active) noexcept;

/// Everything about a model that its cost follows from.
struct ModelShape {
  ModelConfig config;
  std::vector<WeightShape> weights;  // in the order of a pass
  uint64_t vector_bytes = 0;         // norms, biases and the like, held as f32
  uint64_t resident = 0;             // weights and vectors in memory
  uint64_t disk = 0;                 // of the model's files; of a config: of its tensors in the type assumed
  uint64_t table_rows = 0, table_bytes = 0;  // of memory tables, which are files of their own
  /// Weight bytes and rows of a decoded token; where no input is silent what Model::bytes_per_token() says.
  double decode_weight_bytes() const;
  /// Bytes of the rows of memory tables that a token reads.
  double memory_row_bytes() const;
  /// What a pass over `rows` tokens reads beyond the experts of one token (WeightShape::touched).
  double further_expert_bytes(double rows) const;
};

/// The type that a tensor is held in; `cols`: length of its rows, `spiking`: its inputs are spikes.
using TypeOfTensor = std::function<PackedType(const std::string& name, uint64_t cols, bool spiking)>;

/// Counts a (valid) config. `activation` overrides that of the layers. Throws Error(unsupported) where the
/// activation cannot be computed for a matrix, as loading would.
ModelShape shape_of(const ModelConfig& config, const TypeOfTensor& type_of,
                    const std::optional<ActivationPolicy>& activation = {});
/// All weights in one type, or f16 where their rows do not divide into its blocks.
ModelShape shape_of(const ModelConfig& config, DType type,
                    const std::optional<ActivationPolicy>& activation = {});
/// A loaded model, with what packs have added to it.
ModelShape shape_of(const Model& model, const std::optional<ActivationPolicy>& activation = {});

struct PartCost {
  double macs = 0, bytes = 0;
};
struct PassCost {
  std::array<PartCost, kCostParts> parts{};
  double position_macs = 0;  // of the attention over positions and of states, within parts[attention]
  double float_macs = 0, int8_macs = 0, spike_macs = 0;  // by what the inputs are; position_macs are floats
  double spike_weights = 0;                              // that spiking inputs meet, firing or not
  PartCost& operator[](CostPart part) { return parts[static_cast<size_t>(part)]; }
  const PartCost& operator[](CostPart part) const { return parts[static_cast<size_t>(part)]; }
  PartCost total() const;
};

/// One token at decode that sees `context` positions, itself included.
PassCost decode_cost(const ModelShape& shape, KvType kv, uint64_t context);
/// A prompt of `tokens` tokens read from the start in passes of `chunk`, logits after the last.
PassCost prompt_cost(const ModelShape& shape, KvType kv, uint64_t tokens, uint32_t chunk);
/// Multiply-adds over positions of one mixer and one token (prompt_: of all tokens of a prompt).
double position_macs(const MixerConfig& mixer, uint32_t sink_tokens, uint64_t context);
double prompt_position_macs(const MixerConfig& mixer, uint32_t sink_tokens, uint64_t tokens);

/// Stages of a decoding pass, each with a barrier, as compile_plan() would make them.
std::array<double, kCostParts> decode_stages(const ModelConfig& config);

}  // namespace mneme
