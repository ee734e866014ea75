#include "cost/work.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/checked.h"
#include "core/dtype.h"
#include "core/fail.h"
#include "cost/traffic.h"
#include "memory/engram_hash.h"
#include "model/config_names.h"
#include "model/tensor_names.h"
#include "simd/rows.h"
#include "simd/spike_product.h"

namespace mneme {
namespace {

/// "blk.3.mix1.attn_q.weight" taken apart.
struct TensorPlace {
  size_t layer = 0;
  int branch = -1;        // of a parallel mixer
  std::string_view kind;  // "attn_q", "token_embd"
};

TensorPlace place_of(std::string_view name) {
  constexpr std::string_view kWeight = ".weight";
  TensorPlace place;
  place.kind = name;
  if (const auto at = layer_tensor_name_of(name)) {
    place.layer = at->layer;
    place.kind = at->part;
  }
  if (place.kind.starts_with("mix") && place.kind.size() > 5 && place.kind[4] == '.') {
    place.branch = place.kind[3] - '0';
    place.kind.remove_prefix(5);
  }
  if (place.kind.ends_with(kWeight)) place.kind.remove_suffix(kWeight.size());
  return place;
}

struct MatrixKind {
  std::string_view kind;
  CostPart part;
  Projection projection;
  std::string_view reader;  // as probes name it
};
constexpr MatrixKind kMatrices[] = {
    {"attn_q", CostPart::attention, Projection::q, "q"},
    {"attn_k", CostPart::attention, Projection::k, "k"},
    {"attn_v", CostPart::attention, Projection::v, "v"},
    {"attn_gate_a", CostPart::attention, Projection::recurrence, "gate_a"},
    {"attn_decay", CostPart::attention, Projection::recurrence, "decay"},
    {"attn_beta", CostPart::attention, Projection::recurrence, "beta"},
    {"attn_output", CostPart::attention, Projection::o, "o"},
    {"ffn_gate", CostPart::feed_forward, Projection::gate, "gate"},
    {"ffn_up", CostPart::feed_forward, Projection::up, "up"},
    {"ffn_down", CostPart::feed_forward, Projection::down, "down"},
    {"ffn_gate_exps", CostPart::feed_forward, Projection::gate, "gate_exps"},
    {"ffn_up_exps", CostPart::feed_forward, Projection::up, "up_exps"},
    {"ffn_down_exps", CostPart::feed_forward, Projection::down, "down_exps"},
    {"ffn_gate_shexp", CostPart::feed_forward, Projection::gate, "gate_shexp"},
    {"ffn_up_shexp", CostPart::feed_forward, Projection::up, "up_shexp"},
    {"ffn_down_shexp", CostPart::feed_forward, Projection::down, "down_shexp"},
    {"ffn_gate_inp", CostPart::feed_forward, Projection::gate, ""},  // a router, which reads floats
    {"engram_k", CostPart::memory, Projection::memory, ""},
    {"engram_v", CostPart::memory, Projection::memory, ""},
};

class Counter {
 public:
  Counter(const ModelConfig& config, const TypeOfTensor& type_of,
          const std::optional<ActivationPolicy>& forced)
      : type_of_(type_of), forced_(forced) {
    shape_.config = config;
  }

  ModelShape count() {
    for (ExpectedTensor& tensor : expected_tensors(shape_.config)) {
      const auto expert = expert_tensor_name_of(tensor.name);
      if (expert && expert->expert > 0) continue;  // one stands for all of its layer
      if (expert) tensor.name = expert->stacked();
      add(tensor);
    }
    count_tables();
    shape_.resident = shape_.vector_bytes;
    for (const WeightShape& weight : shape_.weights)
      shape_.resident = checked_add(shape_.resident, weight.bytes(), "weights");
    return std::move(shape_);
  }

 private:
  void add(const ExpectedTensor& tensor) {
    const TensorPlace place = place_of(tensor.name);
    if (place.kind == "token_embd" || place.kind == "output") return add_table(tensor, place.kind);
    const auto* const found = std::find_if(std::begin(kMatrices), std::end(kMatrices),
                                           [&](const MatrixKind& m) { return m.kind == place.kind; });
    const bool bias = tensor.name.ends_with(".bias");
    if (found == std::end(kMatrices) || bias || tensor.shape.size() != 2) return add_vector(tensor);
    const ActivationPolicy& policy = forced_ ? *forced_ : shape_.config.layers[place.layer].activation;
    const bool router = place.kind == "ffn_gate_inp";
    const Activation activation = router ? Activation::float_ : policy[found->projection].type;
    WeightShape weight = matrix(tensor, activation == Activation::spike);
    weight.part = found->part;
    weight.layer = place.layer;
    weight.projection = found->reader;
    if (place.branch >= 0) weight.projection = fmt::format("{}.{}", place.branch, found->reader);
    if (place.kind.ends_with("_exps")) {
      const FfnConfig& ffn = shape_.config.layers[place.layer].ffn;
      weight.copies = ffn.experts;
      weight.used = std::min(ffn.top_k, ffn.experts);
    }
    if (activation == Activation::spike && can_stripe(weight.w.type))
      weight.w.stripe_lines = best_stripe_lines(weight.w.type, weight.w.rows);
    weight.input = input_form(activation, weight.w);
    shape_.weights.push_back(std::move(weight));
  }

  // The embedding, which is the head too if tied, and the head of others.
  void add_table(const ExpectedTensor& tensor, std::string_view kind) {
    if (tensor.shape.size() != 2) return add_vector(tensor);  // a bias of the head
    WeightShape weight = matrix(tensor, false);
    weight.part = CostPart::head;
    weight.looked_up = kind == "token_embd" && !shape_.config.tied;
    if (!weight.looked_up) weight.input = input_form(head_activation(forced_), weight.w);
    shape_.weights.push_back(std::move(weight));
  }

  WeightShape matrix(const ExpectedTensor& tensor, bool spiking) const {
    WeightShape weight;
    weight.name = tensor.name.substr(0, tensor.name.size() - 7);
    weight.w.type = type_of_(tensor.name, tensor.shape[1], spiking);
    weight.w.rows = static_cast<int64_t>(tensor.shape[0]);
    weight.w.cols = static_cast<int64_t>(tensor.shape[1]);
    return weight;
  }

  void add_vector(const ExpectedTensor& tensor) {
    uint64_t values = sizeof(float);
    for (const uint64_t side : tensor.shape) values = checked_mul(values, side, "vectors");
    shape_.vector_bytes = checked_add(shape_.vector_bytes, values, "vectors");
  }

  void count_tables() {
    for (const auto& [name, table] : shape_.config.tables) {
      const uint64_t rows = EngramHash(table).rows();
      shape_.table_rows += rows;
      shape_.table_bytes = checked_add(
          shape_.table_bytes, checked_mul(rows, row_bytes(table.format, table.head_dim), "memory tables"),
          "memory tables");
    }
  }

  ModelShape shape_;
  const TypeOfTensor& type_of_;
  const std::optional<ActivationPolicy>& forced_;
};

/// Multiply-adds beside the matrices: gates of low rank, convolutions.
void add_small(const ModelConfig& config, double tokens, PassCost& cost) {
  for (const LayerConfig& layer : config.layers) {
    for (const MixerConfig& mixer : layer.mixer.branches())
      if (mixer.type == MixerType::gla && mixer.gate == GateType::low_rank)
        cost[CostPart::attention].macs += tokens * mixer.kv_heads * mixer.head_dim * mixer.gate_rank;
    if (layer.memory && layer.memory->conv)
      cost[CostPart::memory].macs += tokens * config.d_model * layer.memory->conv->kernel;
  }
  cost.float_macs += cost[CostPart::attention].macs + cost[CostPart::memory].macs;
}

/// `weights`: that the pass would multiply if every input fired; `macs`: that it does.
void add_macs(const WeightShape& weight, double weights, double macs, PassCost& cost) {
  cost[weight.part].macs += macs;
  switch (weight.input) {
    case Linear::Input::int8:
      cost.int8_macs += macs;
      break;
    case Linear::Input::spikes:
      cost.spike_macs += macs;
      cost.spike_weights += weights;
      break;
    default:
      cost.float_macs += macs;
  }
}

}  // namespace

std::string_view to_string(CostPart part) noexcept {
  constexpr std::string_view kNames[] = {"attention", "feed_forward", "memory", "head"};
  return kNames[static_cast<size_t>(part)];
}

uint64_t WeightShape::bytes() const {
  return checked_mul(matrix_bytes(w), static_cast<uint64_t>(copies), "weights");
}

bool WeightShape::event_driven() const {
  return input == Linear::Input::spikes && listed_share(active) <= event_share(1);
}

double WeightShape::touched(double rows) const {
  return copies > 1 ? copies * (1 - std::pow(1 - used / copies, rows)) : 1;
}

double WeightShape::decode_bytes() const {
  if (looked_up) return 0;
  const auto all = static_cast<double>(matrix_bytes(w)) * used;
  if (!event_driven()) return all;
  const double scales =
      static_cast<double>(stripe_scale_bytes(w)) / static_cast<double>(stripe_block_bytes(w));
  const double read_blocks = 1 - std::pow(1 - active, static_cast<double>(kBlock));
  return all * (scales * read_blocks + (1 - scales) * listed_share(active));
}

double listed_share(double active) noexcept {
  constexpr int kColumns = static_cast<int>(kBlock), kGroup = 4;
  if (!(active > 0)) return 0;
  if (active >= 1) return 1;
  double share = 0, logs = 0;  // of binomial coefficients
  for (int fired = 0; fired <= kColumns; ++fired) {
    if (fired > 0) logs += std::log(double(kColumns - fired + 1)) - std::log(double(fired));
    const double chance =
        std::exp(logs + fired * std::log(active) + (kColumns - fired) * std::log1p(-active));
    const int listed = (fired + kGroup - 1) / kGroup * kGroup;
    share += chance * listed / double(kColumns);
  }
  return std::min(1.0, share);
}

double ModelShape::further_expert_bytes(double rows) const {
  double sum = 0;
  for (const WeightShape& weight : weights)
    if (weight.copies > 1)
      sum += static_cast<double>(matrix_bytes(weight.w)) * (weight.touched(rows) - weight.used);
  return sum;
}

double ModelShape::memory_row_bytes() const {
  double bytes = 0;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.memory) continue;
    const EngramTableConfig& table = config.tables.at(layer.memory->table);
    bytes += double(table.rows_per_token()) * row_bytes(table.format, table.head_dim);
  }
  return bytes;
}

double ModelShape::decode_weight_bytes() const {
  double bytes = memory_row_bytes();
  for (const WeightShape& weight : weights) bytes += weight.decode_bytes();
  return bytes;
}

ModelShape shape_of(const ModelConfig& config, const TypeOfTensor& type_of,
                    const std::optional<ActivationPolicy>& activation) {
  return Counter(config, type_of, activation).count();
}

ModelShape shape_of(const ModelConfig& config, DType type,
                    const std::optional<ActivationPolicy>& activation) {
  const DTypeInfo& info = dtype_info(type);
  uint64_t disk = 0;
  const auto fits = [&](uint64_t cols) { return cols % info.block_size == 0; };
  ModelShape shape = shape_of(
      config,
      [&](const std::string&, uint64_t cols, bool) { return packed_type(fits(cols) ? type : DType::f16); },
      activation);
  for (const WeightShape& weight : shape.weights) {
    const DTypeInfo& of = dtype_info(fits(static_cast<uint64_t>(weight.w.cols)) ? type : DType::f16);
    const auto values =
        checked_mul(static_cast<uint64_t>(weight.w.rows), static_cast<uint64_t>(weight.w.cols), "weights");
    disk = checked_add(disk,
                       checked_mul(checked_mul(values / of.block_size, of.block_bytes, "weights"),
                                   static_cast<uint64_t>(weight.copies), "weights"),
                       "weights");
  }
  shape.disk = checked_add(disk, shape.vector_bytes, "weights");
  return shape;
}

ModelShape shape_of(const Model& model, const std::optional<ActivationPolicy>& activation) {
  std::map<std::string, PackedType, std::less<>> types;
  for (const TensorDescription& tensor : model.tensors()) {
    const std::string_view layout = tensor.layout;
    for (int type = 0; type <= static_cast<int>(PackedType::w8); ++type) {
      const std::string_view name = packed_layout(static_cast<PackedType>(type)).name;
      if (layout == name || (layout.starts_with(name) && layout.substr(name.size()).starts_with(", ")))
        types[tensor.name] = static_cast<PackedType>(type);
    }
  }
  ModelShape shape = shape_of(
      model.config(),
      [&](const std::string& name, uint64_t, bool) {
        const auto found = types.find(name);
        return found == types.end() ? PackedType::f32 : found->second;
      },
      activation);
  shape.disk = model.bytes().disk;
  return shape;
}

PartCost PassCost::total() const {
  PartCost sum;
  for (const PartCost& part : parts) {
    sum.macs += part.macs;
    sum.bytes += part.bytes;
  }
  return sum;
}

double position_macs(const MixerConfig& mixer, uint32_t sink_tokens, uint64_t context) {
  const double width = double(mixer.heads) * mixer.head_dim;
  if (mixer.recurrent()) {
    const double state = double(mixer.kv_heads) * mixer.head_dim * mixer.head_dim;
    const uint32_t group = mixer.heads / mixer.kv_heads;
    return state * ((mixer.type == MixerType::gla ? 2 : 3) + group);
  }
  const double seen = static_cast<double>(positions_seen(mixer, context)) + sink_tokens;
  const uint64_t blocks = mixer.type == MixerType::sparse ? context / mixer.block : 0;
  const auto means = static_cast<double>(blocks);
  return width * (2 * seen + means);
}

double prompt_position_macs(const MixerConfig& mixer, uint32_t sink_tokens, uint64_t tokens) {
  const auto n = static_cast<double>(tokens);
  if (mixer.recurrent()) return n * position_macs(mixer, sink_tokens, 1);
  const double width = double(mixer.heads) * mixer.head_dim;
  // The sum of min(t, most) over the tokens t = 1 ... n, and of floor(t / block).
  const auto most = static_cast<double>(positions_seen(mixer, UINT64_MAX));
  const double seen = n <= most ? n * (n + 1) / 2 : most * (most + 1) / 2 + (n - most) * most;
  double means = 0;
  if (mixer.type == MixerType::sparse) {
    const double block = mixer.block, whole = std::floor(n / block);
    means = block * whole * (whole - 1) / 2 + whole * (n - whole * block + 1);
  }
  return width * (2 * (seen + n * sink_tokens) + means);
}

PassCost decode_cost(const ModelShape& shape, KvType kv, uint64_t context) {
  PassCost cost;
  const ModelConfig& config = shape.config;
  add_small(config, 1, cost);
  for (const WeightShape& weight : shape.weights) {
    if (weight.looked_up) continue;
    add_macs(weight, weight.values() * weight.used, weight.decode_macs(), cost);
    cost[weight.part].bytes += weight.decode_bytes();
  }
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      cost.position_macs += position_macs(mixer, config.sink_tokens, context);
  cost[CostPart::attention].macs += cost.position_macs;
  cost.float_macs += cost.position_macs;
  cost[CostPart::attention].bytes += decode_bytes_per_token(config, kv, 0, context - 1, 1);
  cost[CostPart::memory].bytes += shape.memory_row_bytes();
  return cost;
}

PassCost prompt_cost(const ModelShape& shape, KvType kv, uint64_t tokens, uint32_t chunk) {
  PassCost cost;
  const ModelConfig& config = shape.config;
  const auto n = static_cast<double>(tokens);
  const double passes = std::ceil(n / chunk), rows = std::min<double>(chunk, n);
  add_small(config, n, cost);
  for (const WeightShape& weight : shape.weights) {
    if (weight.looked_up) continue;
    const bool head = weight.part == CostPart::head;  // for the last token of the prompt
    const double macs = weight.values() * weight.used * (head ? 1 : n);
    add_macs(weight, macs, macs, cost);
    cost[weight.part].bytes +=
        static_cast<double>(matrix_bytes(weight.w)) * weight.touched(rows) * (head ? 1 : passes);
  }
  for (const LayerConfig& layer : config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      cost.position_macs += prompt_position_macs(mixer, config.sink_tokens, tokens);
  cost[CostPart::attention].macs += cost.position_macs;
  cost.float_macs += cost.position_macs;
  cost[CostPart::attention].bytes += n * prefill_bytes_per_token(config, kv, 0, 0, tokens, chunk);
  cost[CostPart::memory].bytes += n * shape.memory_row_bytes();
  return cost;
}

std::array<double, kCostParts> decode_stages(const ModelConfig& config) {
  double attention = 0, ffn = 0, memory = 0;
  bool convolves = false;
  for (const LayerConfig& layer : config.layers) {
    for (const MixerConfig& mixer : layer.mixer.branches())
      attention += mixer.type == MixerType::sparse ? 4 : 3;
    if (layer.mixer.type == MixerType::parallel) attention += 1;
    if (layer.memory) memory += layer.memory->conv ? 4 : 3;
    convolves |= layer.memory && layer.memory->conv;
    ffn += layer.ffn.moe() ? 3 : 2;
    if (layer.post_norm) {
      attention += 1;
      ffn += 1;
    }
  }
  return {attention, ffn, memory + (convolves ? 1 : 0), 2};  // head: with the embedding
}

}  // namespace mneme
