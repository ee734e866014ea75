// What the stages of several files share: preparing inputs, applying a Linear, splitting matrices into tasks.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>

#include "core/fail.h"
#include "model/model_impl.h"
#include "model/plan.h"
#include "simd/spike_product.h"

namespace mneme {

/// Which forms of an input its consumers read.
struct InputForms {
  struct Spikes {
    NeuronSetting neuron;
    bool counts = false, floats = false;
  };
  bool int8 = false, floats = false, rounded = false, int4 = false;
  std::vector<Spikes> spikes;  // [Linear::spike_slot]
  void add(const Linear& linear) {
    int8 |= linear.input == Linear::Input::int8;
    floats |= linear.input == Linear::Input::floats;
    rounded |= linear.input == Linear::Input::rounded_floats;
    int4 |= linear.input == Linear::Input::int4_floats;
    if (!is_spiking(linear.input)) return;
    if (spikes.size() <= linear.spike_slot) spikes.resize(linear.spike_slot + 1);
    Spikes& form = spikes[linear.spike_slot];
    form.neuron = linear.neuron;
    form.counts |= linear.input == Linear::Input::spikes;
    form.floats |= linear.input == Linear::Input::spike_floats;
  }
  /// Whether a form needs the whole row before its first value is known.
  bool needs_whole_rows() const { return rounded || int4 || !spikes.empty(); }
};

inline void grow(std::vector<float>& v, int64_t size) {
  if (static_cast<int64_t>(v.size()) < size) v.resize(static_cast<size_t>(size));
}

/// Makes room in `out` for rows x cols; call before prepare_row, from one thread. `decode`: few rows, of
/// which finish_rows will list the events.
inline void size_activations(const InputForms& forms, int64_t rows, int64_t cols, Activations& out,
                             bool decode) {
  if (forms.int8 || forms.rounded) out.q.reserve(rows, cols);
  if (forms.floats) grow(out.f, rows * cols);
  if (forms.rounded) grow(out.rounded, rows * cols);
  if (forms.int4) grow(out.int4, rows * cols);
  if (out.spikes.size() < forms.spikes.size()) out.spikes.resize(forms.spikes.size());
  for (size_t i = 0; i < forms.spikes.size(); ++i) {
    out.spikes[i].rows.reserve(rows, cols, decode && forms.spikes[i].counts);
    if (forms.spikes[i].floats) grow(out.spikes[i].f, rows * cols);
  }
}

/// f[c] = scale * code of row `row`, after it was rounded.
inline void codes_to_floats(const QuantizedRows& x, int64_t row, int64_t cols, float* f) {
  const int8_t* q = x.q.data() + row * cols;
  const float* d = x.d.data() + row * (cols / kBlock);
  for (int64_t c = 0; c < cols; ++c) f[c] = d[c / kBlock] * static_cast<float>(q[c]);
}

/// Puts one row x [cols] into `out` in every form wanted.
inline void prepare_row(const InputForms& forms, const float* x, int64_t row, int64_t cols,
                        Activations& out) {
  if (forms.int8 || forms.rounded) quantize_blocks(x, row, cols, 0, cols / kBlock, out.q);
  if (forms.floats) std::copy_n(x, cols, out.f.data() + row * cols);
  if (forms.rounded) codes_to_floats(out.q, row, cols, out.rounded.data() + row * cols);
  if (forms.int4) round_to_int4(x, cols, out.int4.data() + row * cols);
  if (forms.spikes.empty()) return;
  const RowMagnitude magnitude = magnitude_of(x, cols);  // the same for every neuron
  for (size_t i = 0; i < forms.spikes.size(); ++i) {
    Activations::Spikes& spikes = out.spikes[i];
    fire_row(forms.spikes[i].neuron, magnitude, x, row, cols, spikes.rows);
    if (forms.spikes[i].floats) spikes_to_floats(spikes.rows, row, cols, spikes.f.data() + row * cols);
  }
}

/// At decode, after every row of a step is prepared.
inline void finish_rows(const InputForms& forms, int64_t cols, Activations& out) {
  for (size_t i = 0; i < forms.spikes.size(); ++i)
    if (forms.spikes[i].counts) unite_events(cols, out.spikes[i].rows);
}

/// y[n, row] = W x + b for rows of tiles [tile_begin, tile_end) and input rows [n_begin, n_end).
inline void apply_linear(const Linear& linear, const Activations& x, int64_t tile_begin, int64_t tile_end,
                         int64_t n_begin, int64_t n_end, float* y, int64_t stride) {
  const PackedMatrix& w = linear.w;
  const auto floats = [&](const std::vector<float>& f) {
    packed_product(w, f.data(), w.cols, tile_begin, tile_end, n_begin, n_end, y, stride);
  };
  switch (linear.input) {
    case Linear::Input::int8:
      packed_product(w, x.q, tile_begin, tile_end, n_begin, n_end, y, stride);
      break;
    case Linear::Input::floats:
      floats(x.f);
      break;
    case Linear::Input::rounded_floats:
      floats(x.rounded);
      break;
    case Linear::Input::int4_floats:
      floats(x.int4);
      break;
    case Linear::Input::spikes:
      spike_product(w, x.spikes[linear.spike_slot].rows, tile_begin, tile_end, n_begin, n_end, y, stride);
      break;
    case Linear::Input::spike_floats:
      floats(x.spikes[linear.spike_slot].f);
      break;
  }
  if (linear.bias.empty()) return;
  const int64_t begin = tile_begin * kTileRows, end = std::min(tile_end * kTileRows, w.rows);
  for (int64_t n = n_begin; n < n_end; ++n)
    for (int64_t r = begin; r < end; ++r) y[n * stride + r] += linear.bias[static_cast<size_t>(r)];
}

/// Tiles that a product with any of the matrices takes at once: those of a stripe.
inline int64_t tile_multiple(const std::vector<const Linear*>& linears) {
  int64_t multiple = 1;
  for (const Linear* linear : linears)
    if (linear->w.stripe_lines > 0) multiple = std::max(multiple, stripe_tiles(linear->w));
  return multiple;
}

/// Cuts the tiles of some matrices into tasks of `group` tiles.
class TileTasks {
 public:
  TileTasks() = default;
  /// About `per_thread` tasks a thread: enough for a late thread to be helped, few enough not to cost.
  /// `group` is a multiple of `multiple` (a power of 2), and of the tiles of a stripe.
  TileTasks(const std::vector<const Linear*>& linears, int threads, int64_t per_thread,
            int64_t multiple = 1) {
    multiple = std::max(multiple, tile_multiple(linears));
    int64_t tiles = 0;
    for (const Linear* linear : linears) tiles += linear->w.tiles();
    group_ = std::clamp<int64_t>(tiles / (threads * per_thread), 1, 64);
    group_ = (group_ + multiple - 1) / multiple * multiple;
    for (const Linear* linear : linears) {
      parts_.push_back({count_, linear->w.tiles()});
      count_ += (linear->w.tiles() + group_ - 1) / group_;
    }
  }
  int64_t count() const { return count_; }
  int64_t group() const { return group_; }

  struct Range {
    size_t matrix;
    int64_t begin, end;  // tiles
  };
  Range range(int64_t task) const {
    size_t i = parts_.size() - 1;
    while (task < parts_[i].first) --i;
    const int64_t begin = (task - parts_[i].first) * group_;
    return {i, begin, std::min(begin + group_, parts_[i].tiles)};
  }

 private:
  struct Part {
    int64_t first, tiles;
  };
  std::vector<Part> parts_;
  int64_t group_ = 1, count_ = 0;
};

/// Whether a norm follows a layer's mixer, so that its output does not go into x at once.
inline bool output_is_normed(const LayerConfig& layer) {
  return layer.post_norm || layer.mixer.type == MixerType::parallel;
}

/// Where the output projection of a mixer writes [rows, d_model]: its part of ws.branch, or null: added to x.
inline float* mixer_output(const ModelImpl& model, const MixerPlace& place, const Step& step) {
  if (!output_is_normed(model.config.layers[place.layer])) return nullptr;
  return step.workspace.branch.data() +
         static_cast<int64_t>(place.branch) * step.rows() * int64_t{model.config.d_model};
}

inline std::string describe_linear(const Linear& linear) {
  const auto spikes = [&] {
    return fmt::format(
        "spikes (k {:g}{})", linear.neuron.k,
        linear.neuron.dead_zone > 0 ? fmt::format(", dead zone {:g}", linear.neuron.dead_zone) : "");
  };
  std::string head = fmt::format("{} [{}x{}] {}", linear.name, linear.w.rows, linear.w.cols,
                                 packed_layout(linear.w.type).name);
  switch (linear.input) {
    case Linear::Input::int8:
      return head + " * int8";
    case Linear::Input::floats:
      return head + " * f32";
    case Linear::Input::rounded_floats:
      return head + " * int8 as f32";
    case Linear::Input::int4_floats:
      return head + " * int4 as f32";
    case Linear::Input::spikes:
      return fmt::format(
          "{}, in stripes * {}: events while at most {:.0f} % of inputs fire ({:.0f} % in batches), else "
          "dense",
          head, spikes(), 100 * event_share(1), 100 * event_share(kMaxDecodeRows));
    case Linear::Input::spike_floats:
      return head + " * " + spikes() + " as f32";
  }
  return head;
}

/// The projections of a mixer's input and the columns of ws.qkv that they write.
struct MixerInputs {
  std::vector<const Linear*> linears;
  std::vector<int64_t> columns;  // where each one begins
  explicit MixerInputs(const MixerWeights& w) : linears(w.inputs()) {
    int64_t column = 0;
    for (const Linear* linear : linears) {
      columns.push_back(column);
      column += linear->w.rows;
    }
  }
  std::string describe() const {
    std::string text;
    for (const Linear* linear : linears) text += (text.empty() ? "" : " | ") + describe_linear(*linear);
    return text;
  }
};

}  // namespace mneme
