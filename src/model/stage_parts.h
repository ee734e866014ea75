// What the stages of several files share: preparing inputs, applying a Linear, splitting matrices into tasks.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>

#include "core/fail.h"
#include "model/model_impl.h"
#include "model/plan.h"

namespace mneme {

/// Which forms of an input its consumers read.
struct InputForms {
  bool int8 = false, floats = false, rounded = false;
  void add(const Linear& linear) {
    int8 |= linear.input == Linear::Input::int8;
    floats |= linear.input == Linear::Input::floats;
    rounded |= linear.input == Linear::Input::rounded_floats;
  }
};

inline void grow(std::vector<float>& v, int64_t size) {
  if (static_cast<int64_t>(v.size()) < size) v.resize(static_cast<size_t>(size));
}

/// Makes room in `out` for rows x cols; call before prepare_row, from one thread.
inline void size_activations(const InputForms& forms, int64_t rows, int64_t cols, Activations& out) {
  if (forms.int8 || forms.rounded) out.q.reserve(rows, cols);
  if (forms.floats || forms.rounded) grow(out.f, rows * cols);
}

/// Puts one row x [cols] into `out` in every form wanted.
inline void prepare_row(const InputForms& forms, const float* x, int64_t row, int64_t cols,
                        Activations& out) {
  if (forms.int8 || forms.rounded) quantize_blocks(x, row, cols, 0, cols / kBlock, out.q);
  if (!forms.floats && !forms.rounded) return;  // out.f has no room
  float* f = out.f.data() + row * cols;
  if (forms.floats) std::copy_n(x, cols, f);
  if (forms.rounded) {
    const int8_t* q = out.q.q.data() + row * cols;
    const float* d = out.q.d.data() + row * (cols / kBlock);
    for (int64_t c = 0; c < cols; ++c) f[c] = d[c / kBlock] * static_cast<float>(q[c]);
  }
}

/// y[n, row] = W x + b for rows of tiles [tile_begin, tile_end) and input rows [n_begin, n_end).
inline void apply_linear(const Linear& linear, const Activations& x, int64_t tile_begin, int64_t tile_end,
                         int64_t n_begin, int64_t n_end, float* y, int64_t stride) {
  const PackedMatrix& w = linear.w;
  if (linear.input == Linear::Input::int8)
    packed_product(w, x.q, tile_begin, tile_end, n_begin, n_end, y, stride);
  else
    packed_product(w, x.f.data(), w.cols, tile_begin, tile_end, n_begin, n_end, y, stride);
  if (linear.bias.empty()) return;
  const int64_t begin = tile_begin * kTileRows, end = std::min(tile_end * kTileRows, w.rows);
  for (int64_t n = n_begin; n < n_end; ++n)
    for (int64_t r = begin; r < end; ++r) y[n * stride + r] += linear.bias[static_cast<size_t>(r)];
}

/// Cuts the tiles of some matrices into tasks of `group` tiles.
class TileTasks {
 public:
  TileTasks() = default;
  /// About `per_thread` tasks a thread: enough for a late thread to be helped, few enough not to cost.
  /// `group` is a multiple of `multiple`.
  TileTasks(const std::vector<const Linear*>& linears, int threads, int64_t per_thread,
            int64_t multiple = 1) {
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
  const char* input = linear.input == Linear::Input::int8     ? "int8"
                      : linear.input == Linear::Input::floats ? "f32"
                                                              : "int8 as f32";
  return fmt::format("{} [{}x{}] {} * {}", linear.name, linear.w.rows, linear.w.cols,
                     packed_layout(linear.w.type).name, input);
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
