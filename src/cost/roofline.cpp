#include "cost/roofline.h"

#include <algorithm>
#include <cmath>

#include "cost/traffic.h"
#include "model/attention_stage.h"
#include "model/sequence_state.h"
#include "simd/recurrence.h"
#include "simd/spike_product.h"

namespace mneme {
namespace {

/// A model of nothing but one mixer, whose traffic alone is asked for.
ModelConfig with_only(const MixerConfig& mixer, uint32_t sink_tokens) {
  ModelConfig config;
  config.sink_tokens = sink_tokens;
  config.layers.assign(1, LayerConfig{});
  config.layers[0].mixer = mixer;
  return config;
}

/// Positions that `heads` heads read together if each chooses `chosen` of `context` for itself.
double chosen_apart(double context, double chosen, uint32_t heads) {
  if (chosen >= context) return context;
  return context * (1 - std::pow(1 - chosen / context, double(heads)));
}

/// Bytes of the cache that a token reads because the heads of sparse mixers choose apart, beyond what
/// kv_bytes_read() counts.
double bytes_chosen_apart(const ModelShape& shape, KvType kv, uint64_t context) {
  double bytes = 0;
  for (const LayerConfig& layer : shape.config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches()) {
      if (mixer.type != MixerType::sparse || mixer.shared) continue;
      const auto seen = static_cast<double>(positions_seen(mixer, context));
      const double read = chosen_apart(static_cast<double>(context), seen, mixer.heads / mixer.kv_heads);
      bytes += (read - seen) * static_cast<double>(kv_bytes_written(with_only(mixer, 0), kv));
    }
  return bytes;
}

/// Seconds of `tasks` equal tasks of `each` seconds on the threads.
double shared_out(double tasks, double each, int threads) {
  return std::ceil(tasks / threads) * each;
}

class Predictor {
 public:
  Predictor(const ModelShape& shape, KvType kv, KernelTimes& times, double working_set)
      : shape_(shape), kv_(kv), times_(times), working_set_(working_set), rate_(1 / times.read(working_set)) {
    out_.read_gbps = rate_ / 1e9;
  }

  /// Work that reads `bytes`, computes for `compute` seconds, and takes `seconds` where both meet.
  void add(CostPart part, double bytes, double compute, double seconds) {
    out_.reading += bytes / rate_;
    out_.computing += compute;
    out_.parts[static_cast<size_t>(part)] += std::max({seconds, bytes / rate_, compute});
  }
  double read_seconds(double bytes) const { return bytes / rate_; }

  /// A product of one row at decode; the end of its stage counts with the first matrix of the stage.
  void decode_product(const WeightShape& weight, bool begins_stage) {
    const double columns = weight.event_driven() ? listed_share(weight.active) : 1;
    const double bytes = weight.decode_bytes();
    const KernelTimes::Stream stream = times_.stream(weight.w.type, weight.input, working_set_);
    add(weight.part, bytes,
        weight.values() * weight.used * columns * times_.product(weight.w.type, weight.input),
        bytes * stream.per_byte);
    if (!begins_stage) return;
    out_.stages += stream.per_stage;
    out_.parts[static_cast<size_t>(weight.part)] += stream.per_stage;
  }
  /// What adds to a stage's time, whatever it reads.
  void add_serial(CostPart part, double seconds) {
    out_.computing += seconds;
    out_.parts[static_cast<size_t>(part)] += seconds;
  }

  void decode_mixer(const MixerConfig& mixer, Linear::Input output_input, uint64_t context) {
    const auto threads = times_.threads();
    const double width = double(mixer.heads) * mixer.head_dim;
    if (mixer.recurrent()) {
      const double tiles = std::ceil(mixer.head_dim / double(kDecodeColumns));
      const double bytes = 2.0 * mixer.kv_heads * mixer.head_dim * mixer.head_dim * sizeof(float);
      const double compute = shared_out(mixer.kv_heads * tiles, times_.recurrence(mixer) / tiles, threads);
      add(CostPart::attention, bytes, compute, compute + read_seconds(bytes));
    } else {
      const KvType kv = kv_type_of(mixer, kv_);
      const uint32_t group = mixer.heads / mixer.kv_heads;
      double seen = static_cast<double>(positions_seen(mixer, context)) + shape_.config.sink_tokens;
      uint32_t queries = group;  // that share a position that is read
      if (mixer.type == MixerType::sparse && !mixer.shared && group > 1) {
        const double chosen = seen;
        seen = chosen_apart(static_cast<double>(context), chosen, group);
        queries = static_cast<uint32_t>(std::clamp(std::round(chosen * group / seen), 1.0, double(group)));
      }
      const auto units = static_cast<int64_t>(std::ceil(seen / double(kAttentionBlock)));
      const auto parts = static_cast<double>(part_count(units));
      const double rounds = shared_out(mixer.kv_heads * parts, seen / parts, threads);
      add(CostPart::attention, cache_bytes(mixer, context),
          rounds * times_.attention(kv, mixer.head_dim, queries),
          rounds * times_.stream_attention(kv, mixer.head_dim, queries, working_set_));
      if (mixer.type == MixerType::sparse) {
        const uint64_t blocks = context / mixer.block;
        const double means = static_cast<double>(blocks) * width;
        add_serial(CostPart::attention, means * times_.product(PackedType::f32, Linear::Input::floats));
      }
    }
    add_serial(CostPart::attention, width * times_.row(output_input));
  }

  void prompt_mixer(const MixerConfig& mixer, uint64_t tokens, uint32_t chunk) {
    const auto n = static_cast<double>(tokens);
    if (mixer.recurrent()) {
      const double tiles = std::max(1.0, mixer.head_dim / double(kPrefillColumns));
      const double compute =
          shared_out(mixer.kv_heads * tiles, times_.recurrence(mixer) / tiles, times_.threads()) * n;
      add(CostPart::attention, 0, compute, compute);
      return;
    }
    const double pairs =
        prompt_position_macs(mixer, shape_.config.sink_tokens, tokens) / (2.0 * mixer.heads * mixer.head_dim);
    const ModelConfig one = with_only(mixer, shape_.config.sink_tokens);
    const double compute =
        pairs * mixer.kv_heads *
        times_.batch_attention(kv_type_of(mixer, kv_), mixer.head_dim, mixer.heads / mixer.kv_heads) /
        times_.threads();
    add(CostPart::attention, n * prefill_bytes_per_token(one, kv_, 0, 0, tokens, chunk), compute, compute);
  }

  /// The ends of stages, without `counted` of each part that products have counted.
  void add_stages(double passes, const std::array<double, kCostParts>& counted) {
    const std::array<double, kCostParts> stages = decode_stages(shape_.config);
    for (const CostPart part : kAllCostParts) {
      const auto i = static_cast<size_t>(part);
      const double seconds = std::max(0.0, stages[i] - counted[i]) * passes * times_.stage();
      out_.stages += seconds;
      out_.parts[i] += seconds;
    }
    out_.stages += passes * times_.job();
    out_.parts[static_cast<size_t>(CostPart::head)] += passes * times_.job();
  }

  PredictedTime take() const { return out_; }

 private:
  double cache_bytes(const MixerConfig& mixer, uint64_t context) const {
    const ModelConfig one = with_only(mixer, shape_.config.sink_tokens);
    return static_cast<double>(kv_bytes_read(one, kv_, context));
  }

  const ModelShape& shape_;
  KvType kv_;
  KernelTimes& times_;
  double working_set_, rate_;
  PredictedTime out_;
};

/// What the o projection of each layer's branch reads, in order.
std::vector<Linear::Input> output_inputs(const ModelShape& shape) {
  std::vector<Linear::Input> inputs;
  for (const WeightShape& weight : shape.weights)
    if (weight.projection == "o" || weight.projection.ends_with(".o")) inputs.push_back(weight.input);
  return inputs;
}

/// Whether a matrix is the first of its stage: q (k, v and gates follow), o, gate (up follows), down, the key
/// of a memory module, the head; with experts the router (shared ones follow), and theirs.
bool begins_stage(const WeightShape& weight) {
  const std::string_view name = weight.projection;
  const std::string_view kind = name.substr(name.find('.') + 1);
  return kind == "q" || kind == "o" || kind == "gate" || kind == "down" || kind == "gate_exps" ||
         kind == "down_exps" || weight.part == CostPart::head || weight.name.ends_with("engram_k") ||
         weight.name.ends_with("ffn_gate_inp");
}

}  // namespace

double PredictedTime::seconds() const {
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

PredictedTime predict_decode(const ModelShape& shape, KvType kv, uint64_t context, KernelTimes& times) {
  const double bytes = decode_cost(shape, kv, context).total().bytes + bytes_chosen_apart(shape, kv, context);
  Predictor predictor(shape, kv, times, bytes);
  const ModelConfig& config = shape.config;
  const double d = config.d_model;
  std::array<double, kCostParts> counted{};
  for (const WeightShape& weight : shape.weights) {
    if (weight.looked_up) continue;
    const bool spikes = weight.input == Linear::Input::spikes;
    const bool begins = begins_stage(weight);
    counted[static_cast<size_t>(weight.part)] += begins ? 1 : 0;
    predictor.decode_product(weight, begins);
    // Each thread prepares the inputs of a stage for itself; the hidden rows of a feed-forward are shared
    // out, but for neurons, whose threshold needs the whole row.
    if (weight.projection == "q" || weight.projection.ends_with(".q") || weight.projection == "gate" ||
        weight.part == CostPart::head)
      predictor.add_serial(weight.part, d * times.row(weight.input));
    if (weight.projection.starts_with("down")) {
      predictor.add_serial(
          weight.part, static_cast<double>(weight.w.cols) * weight.used * times.hidden() / times.threads());
      if (spikes)
        predictor.add_serial(weight.part, static_cast<double>(weight.w.cols) * times.row(weight.input));
    }
  }
  const std::vector<Linear::Input> outputs = output_inputs(shape);
  size_t mixer_index = 0;
  for (const LayerConfig& layer : config.layers) {
    for (const MixerConfig& mixer : layer.mixer.branches())
      predictor.decode_mixer(mixer, outputs.at(mixer_index++), context);
    if (!layer.memory) continue;
    const EngramTableConfig& table = config.tables.at(layer.memory->table);
    predictor.add_serial(CostPart::memory, (table.embedding_dim() + 2 * d) * times.row(Linear::Input::int8));
  }
  const double rows = shape.memory_row_bytes();
  predictor.add(CostPart::memory, rows, 0, predictor.read_seconds(rows));
  predictor.add_stages(1, counted);
  return predictor.take();
}

PredictedTime predict_prompt(const ModelShape& shape, KvType kv, uint64_t tokens, uint32_t chunk,
                             KernelTimes& times) {
  const PassCost cost = prompt_cost(shape, kv, tokens, chunk);
  const auto n = static_cast<double>(tokens);
  const double passes = std::ceil(n / chunk);
  Predictor predictor(shape, kv, times, cost.total().bytes / passes);
  for (const WeightShape& weight : shape.weights) {
    if (weight.looked_up) continue;
    if (weight.part == CostPart::head) {
      predictor.decode_product(weight, false);
      continue;
    }
    const double compute =
        weight.values() * weight.used * n * times.batch_product(weight.w.type, weight.input);
    const double touched = weight.touched(std::min<double>(chunk, n));
    predictor.add(weight.part, static_cast<double>(matrix_bytes(weight.w)) * touched * passes, compute,
                  compute);
    const double each = n / times.threads();  // rows are shared out
    if (weight.projection == "q" || weight.projection.ends_with(".q") ||
        (weight.part == CostPart::feed_forward && weight.projection.starts_with("gate")))
      predictor.add_serial(weight.part, each * shape.config.d_model * times.row(weight.input));
    if (weight.projection.starts_with("down"))
      predictor.add_serial(weight.part, each * static_cast<double>(weight.w.cols) * times.hidden());
  }
  for (const LayerConfig& layer : shape.config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches()) predictor.prompt_mixer(mixer, tokens, chunk);
  predictor.add(CostPart::memory, n * shape.memory_row_bytes(), 0, 0);
  predictor.add_stages(1.6 * passes, {});  // a prompt's list has about so many more stages
  return predictor.take();
}

}  // namespace mneme
