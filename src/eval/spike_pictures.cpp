#include "eval/spike_pictures.h"

#include <algorithm>
#include <array>

#include "core/fail.h"
#include "eval/canvas.h"

namespace mneme {
namespace {

using Anchor = Canvas::Anchor;
constexpr Colour kInk{34, 34, 34}, kFaint{242, 242, 242}, kGrid{205, 205, 205}, kUp{31, 92, 153},
    kDown{204, 82, 32};
constexpr int kMargin = 24, kHead = 74, kFoot = 44;
constexpr int64_t kMostColumns = 16000;

std::unique_ptr<Canvas> make_canvas(PictureFormat format, int width, int height) {
  return format == PictureFormat::svg ? svg_canvas(width, height) : png_canvas(width, height);
}

std::string joined(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

// ---- raster

struct RasterLayout {
  int64_t tokens, steps, neurons;
  int across, down, left, width, height;  // of a slot, of the drawing, of the picture
  RasterLayout(const SpikeRecord& record, int64_t code_steps, int64_t most_neurons, size_t words)
      : tokens(record.tokens), steps(code_steps), neurons(std::min(most_neurons, record.width)) {
    const int64_t columns = tokens * steps;
    require(columns <= kMostColumns, ErrorCode::limit,
            "a raster of {} tokens with {} steps each is wider than {} steps; draw fewer tokens, or a "
            "bitwise code",
            tokens, steps, kMostColumns);
    across = static_cast<int>(std::clamp<int64_t>(1200 / columns, 1, 8));
    down = static_cast<int>(std::clamp<int64_t>(800 / neurons, 1, 8));
    left = kMargin + 56;
    width = std::max(left + across * static_cast<int>(columns) + kMargin,
                     2 * kMargin + 7 * static_cast<int>(words));
    height = kHead + down * static_cast<int>(neurons) + kFoot;
  }
  int x(int64_t token, int64_t step) const { return left + across * static_cast<int>(token * steps + step); }
  int y(int64_t neuron) const { return kHead + down * static_cast<int>(neuron); }
};

void draw_axes(const RasterLayout& at, Canvas& canvas) {
  const int bottom = at.y(at.neurons), token_width = at.across * static_cast<int>(at.steps);
  for (int64_t token = 0; token < at.tokens; token += 2)
    canvas.box(at.x(token, 0), kHead, token_width, bottom - kHead, kFaint);
  const int64_t every = std::max<int64_t>(1, (28 + token_width - 1) / token_width);
  for (int64_t token = 0; token < at.tokens; token += every)
    canvas.text(at.x(token, 0) + token_width / 2, bottom + 10, std::to_string(token), Anchor::middle, 1,
                kInk);
  canvas.text(at.left + at.across * static_cast<int>(at.tokens * at.steps) / 2, bottom + 28,
              fmt::format("token, {} steps each", at.steps), Anchor::middle, 1, kInk);
  for (int64_t neuron = 0; neuron < at.neurons; neuron += std::max<int64_t>(1, at.neurons / 8))
    canvas.text(at.left - 8, at.y(neuron) + at.down / 2, std::to_string(neuron), Anchor::end, 1, kInk);
  canvas.text(kMargin, kHead - 10, "neuron", Anchor::start, 1, kInk);
}

// The spikes of a token, step by step.
void draw_token(const SpikeTrain& train, int64_t token, const RasterLayout& at, Canvas& canvas) {
  for (int64_t t = 0; t < train.steps; ++t) {
    const auto spikes = train.step(t);
    for (int64_t n = 0; n < at.neurons; ++n)
      if (const int8_t spike = spikes[static_cast<size_t>(n)]; spike != 0)
        canvas.box(at.x(token, t), at.y(n), at.across, at.down, spike > 0 ? kUp : kDown);
  }
}

// ---- histograms

constexpr int kBars = 17, kBarWidth = 36, kPanelHeight = 120, kPanelGap = 52;

void draw_panel(const SpikePanel& panel, SpikeCode code, int top, Canvas& canvas) {
  const SpikeHistogram& h = panel.histogram;
  const int64_t steps = spike_steps(code, h.least(), h.most());
  std::array<double, kBars> parts{};
  double spikes = 0;
  for (const auto& [count, n] : h.spikes_per_value(code, steps)) {
    parts[static_cast<size_t>(std::min<int64_t>(count, kBars - 1))] += static_cast<double>(n);
    spikes += static_cast<double>(count) * static_cast<double>(n);
  }
  const double values = std::max(1.0, static_cast<double>(h.values()));
  canvas.text(kMargin, top,
              fmt::format("{}: T = {}, {:.2f} spikes a neuron, {:.1f} % of slots", panel.name, steps,
                          spikes / values, 100 * spikes / values / static_cast<double>(steps)),
              Anchor::start, 1, kInk);
  const double tallest = std::max(1.0, *std::max_element(parts.begin(), parts.end()));
  const int bottom = top + 28 + kPanelHeight;
  for (int i = 0; i < kBars; ++i) {
    const double part = parts[static_cast<size_t>(i)];
    const int x = kMargin + i * kBarWidth, height = static_cast<int>(part / tallest * kPanelHeight + 0.5);
    canvas.box(x + 2, bottom - height, kBarWidth - 4, height, i == 0 ? kGrid : kUp);
    canvas.text(x + kBarWidth / 2, bottom - height - 7,
                part > 0 ? fmt::format("{:.1f}", 100 * part / values) : "0", Anchor::middle, 1, kInk);
    canvas.text(x + kBarWidth / 2, bottom + 10, i + 1 < kBars ? std::to_string(i) : fmt::format("{}+", i),
                Anchor::middle, 1, kInk);
  }
}

}  // namespace

std::string spike_raster(const SpikeRecord& record, SpikeCode code, int64_t neurons, PictureFormat format) {
  require(record.tokens > 0 && record.width > 0 && neurons > 0, ErrorCode::invalid_argument,
          "a raster needs a token and a neuron");
  const auto [least, most] = std::minmax_element(record.counts.begin(), record.counts.end());
  const int64_t steps = spike_steps(code, *least, *most);
  const std::string title =
      fmt::format("layer {}, input of {}: {} spikes", record.layer, joined(record.names), to_string(code));
  const RasterLayout at(record, steps, neurons, 2 * title.size());
  const auto canvas = make_canvas(format, at.width, at.height);
  draw_axes(at, *canvas);
  double slots = 0;
  for (int64_t token = 0; token < record.tokens; ++token) {
    const std::span<const int32_t> counts(record.counts.data() + token * record.width,
                                          static_cast<size_t>(record.width));
    const SpikeTrain train = encode_spikes(code, counts, steps);
    slots += train.rate();
    draw_token(train, token, at, *canvas);
  }
  canvas->text(kMargin, 22, title, Anchor::start, 2, kInk);
  canvas->text(
      kMargin, 42,
      fmt::format("{} of {} neurons, {} tokens; {:.1f} % of all slots hold a spike; blue +1, red -1",
                  at.neurons, record.width, record.tokens, 100 * slots / static_cast<double>(record.tokens)),
      Anchor::start, 1, kInk);
  return canvas->finish();
}

std::string spike_histograms(const std::string& title, std::span<const SpikePanel> panels, SpikeCode code,
                             PictureFormat format) {
  require(!panels.empty(), ErrorCode::invalid_argument, "a picture of histograms needs one");
  const int width = 2 * kMargin + kBars * kBarWidth;
  const int height =
      kHead + static_cast<int>(std::min<size_t>(panels.size(), 64)) * (28 + kPanelHeight + kPanelGap);
  const auto canvas = make_canvas(format, width, height);
  canvas->text(kMargin, 22, title, Anchor::start, 2, kInk);
  canvas->text(kMargin, 42,
               fmt::format("{} spikes of a neuron for a token, in % of neurons and tokens", to_string(code)),
               Anchor::start, 1, kInk);
  for (size_t i = 0; i < panels.size() && i < 64; ++i)
    draw_panel(panels[i], code, kHead + 8 + static_cast<int>(i) * (28 + kPanelHeight + kPanelGap), *canvas);
  return canvas->finish();
}

}  // namespace mneme
