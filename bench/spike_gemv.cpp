// Event-driven products against dense ones, one row of X: how much of what silence allows is reached.
//   build/release/bin/spike_gemv --rows 8192 --cols 2048 --type q8_0 --threads 2
// prints one JSON object: for every share of silent inputs the time of the dense int8 product in tiles (what
// a model without spikes runs), of the dense product in stripes, of the event-driven one and of the one that
// the engine takes, and beside the speed-up the ideal one, dense bytes / bytes of the lines and scales that
// events need. Matrices rotate through a working set beyond the caches. Reported: medians over rounds in
// which the four take turns. With --batch N, rows of X are as many, each silent on its own, and lists are
// their unions; with --same all are silent at the same inputs, so that the length of the list is that of one.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "core/huge_buffer.h"
#include "core/thread_pool.h"
#include "simd/code_residuals.h"
#include "simd/packed_product.h"
#include "simd/spike_product.h"

namespace {

using namespace mneme;
using Clock = std::chrono::steady_clock;

struct Settings {
  int64_t rows = 8192, cols = 2048, batch = 1, megabytes = 600;
  int threads = 1, rounds = 7, lines = 0;
  bool same = false;
  std::string type = "q8_0";
  std::vector<double> silent{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
};

PackedType type_of(const std::string& name, bool striped) {
  if (name == "w8")
    return striped ? PackedType::w8 : PackedType::q8_0;  // beside the dense product of as many bits
  return name == "q4_0" ? PackedType::q4_0 : name == "q4_1" ? PackedType::q4_1 : PackedType::q8_0;
}

// One code in a hundred beyond int8, as in W8ASpike.
std::unique_ptr<CodeResiduals> random_residuals(const PackedMatrix& w) {
  const int64_t stripes = (w.rows + stripe_rows(w) - 1) / stripe_rows(w);
  auto out = std::make_unique<CodeResiduals>(stripes);
  std::mt19937 rng(2);
  for (int64_t s = 0; s < stripes; ++s) {
    StripeResiduals& rest = out->stripes[static_cast<size_t>(s)];
    const int64_t rows = std::min(stripe_rows(w), w.rows - s * stripe_rows(w));
    for (int64_t g = 0; g < w.cols / kScaleGroup; ++g) {
      rest.begin.push_back(static_cast<uint32_t>(rest.entries.size()));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < kScaleGroup; ++c)
          if (rng() % 100 == 0)
            rest.entries.push_back({static_cast<uint8_t>(r), static_cast<uint8_t>(c), 40});
    }
    rest.begin.push_back(static_cast<uint32_t>(rest.entries.size()));
  }
  return out;
}

// Copies of a matrix of random codes and scales of at most 2^-13.
struct Matrices {
  Matrices(const Settings& s, bool striped) {
    PackedMatrix w{type_of(s.type, striped), s.rows, s.cols};
    if (striped)
      w.stripe_lines = s.lines > 0 ? static_cast<uint8_t>(s.lines) : best_stripe_lines(w.type, s.rows);
    if (w.type == PackedType::w8) residuals = random_residuals(w);
    w.residuals = residuals.get();
    const auto bytes = static_cast<int64_t>(matrix_bytes(w));
    const int64_t copies = std::max<int64_t>(1, (s.megabytes << 20) / bytes);
    memory = HugeBuffer(static_cast<uint64_t>(copies * bytes));
    std::mt19937 rng(1);
    for (uint64_t i = 0; i < memory.size(); i += 4) {
      const auto value = static_cast<uint32_t>(rng()) & 0x07ff07ffu;
      __builtin_memcpy(memory.data() + i, &value, 4);
    }
    for (int64_t i = 0; i < copies; ++i) {
      w.data = memory.data() + i * bytes;
      all.push_back(w);
    }
  }
  HugeBuffer memory;
  std::unique_ptr<CodeResiduals> residuals;
  std::vector<PackedMatrix> all;
};

struct Bench {
  explicit Bench(const Settings& settings) : s(settings), pool(s.threads), tiles(s, false), stripes(s, true) {
    y.resize(static_cast<size_t>(s.batch * s.rows));
  }

  // Tiles of a matrix in tasks of whole stripes, as the engine's stages cut them.
  void each_task(const std::function<void(int64_t, int64_t)>& body) {
    const int64_t count = tiles.all[0].tiles(), unit = stripe_tiles(stripes.all[0]);
    const int64_t group = std::max(unit, count / (s.threads * 8) / unit * unit);
    const auto run = [&](int64_t task) { body(task * group, std::min((task + 1) * group, count)); };
    if (s.threads == 1)
      for (int64_t task = 0; task * group < count; ++task) run(task);
    else
      pool.for_each((count + group - 1) / group, run);
  }

  double seconds(const Matrices& matrices,
                 const std::function<void(const PackedMatrix&, int64_t, int64_t)>& f) {
    const auto begin = Clock::now();
    for (const PackedMatrix& w : matrices.all)
      each_task([&](int64_t first, int64_t last) { f(w, first, last); });
    return std::chrono::duration<double>(Clock::now() - begin).count() /
           static_cast<double>(matrices.all.size());
  }

  nlohmann::ordered_json share(double silent);

  const Settings& s;
  ThreadPool pool;
  Matrices tiles, stripes;
  std::vector<float> y;
};

// Rows of a normal distribution with the dead zone that makes `silent` of it silent.
std::vector<float> inputs(const Settings& s, double silent, NeuronSetting& neuron) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(s.batch * s.cols)), sorted;
  double mean = 0;
  for (float& v : x) v = normal(rng);
  if (s.same)
    for (int64_t n = 1; n < s.batch; ++n) std::copy_n(x.begin(), s.cols, x.begin() + n * s.cols);
  for (const float v : x) sorted.push_back(std::abs(v));
  for (const float v : sorted) mean += v / static_cast<double>(sorted.size());
  std::sort(sorted.begin(), sorted.end());
  const float quantile = sorted[static_cast<size_t>(silent * static_cast<double>(sorted.size() - 1))];
  neuron.k = 3;
  if (silent == 0) neuron.k = 60;  // hardly anything rounds to 0
  neuron.dead_zone = quantile / static_cast<float>(mean) * neuron.k;
  return x;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

nlohmann::ordered_json Bench::share(double silent) {
  NeuronSetting neuron;
  const std::vector<float> x = inputs(s, silent, neuron);
  QuantizedRows q;
  q.reserve(s.batch, s.cols);
  SpikeRows spikes;
  spikes.reserve(s.batch, s.cols, true);
  double spiking = 0;
  for (int64_t n = 0; n < s.batch; ++n) {
    quantize_blocks(x.data() + n * s.cols, n, s.cols, 0, s.cols / kBlock, q);
    fire_row(neuron, x.data() + n * s.cols, n, s.cols, spikes);
    spiking += static_cast<double>(spikes.spiking[static_cast<size_t>(n)]);
  }
  unite_events(s.cols, spikes, true);
  const auto product = [&](SpikePath path) {
    return [&, path](const PackedMatrix& w, int64_t first, int64_t last) {
      spike_product(w, spikes, first, last, 0, s.batch, y.data(), s.rows, path);
    };
  };
  const auto in_tiles = [&](const PackedMatrix& w, int64_t first, int64_t last) {
    packed_product(w, q, first, last, 0, s.batch, y.data(), s.rows);
  };
  std::vector<double> times[4];
  for (int round = 0; round < s.rounds; ++round) {
    times[0].push_back(seconds(tiles, in_tiles));
    times[1].push_back(seconds(stripes, product(SpikePath::dense)));
    times[2].push_back(seconds(stripes, product(SpikePath::events)));
    times[3].push_back(seconds(stripes, product(SpikePath::automatic)));
  }
  // Lines of columns that any row fires, and scales of blocks that have one.
  int64_t columns = 0, blocks = 0;
  for (int64_t b = 0; b < s.cols / kBlock; ++b) {
    uint32_t fired = 0;
    for (int64_t n = 0; n < s.batch; ++n)
      fired |= spikes.fired[static_cast<size_t>(n * (s.cols / kBlock) + b)];
    columns += std::popcount(fired);
    blocks += fired != 0;
  }
  const PackedMatrix& w = stripes.all[0];
  const int64_t count = (s.rows + stripe_rows(w) - 1) / stripe_rows(w);
  const auto dense_bytes = static_cast<double>(matrix_bytes(tiles.all[0]));
  const uint64_t residual_bytes = w.residuals == nullptr ? 0 : w.residuals->bytes();
  const auto event_bytes =
      static_cast<double>(
          count * (columns * 64 * w.stripe_lines + blocks * stripe_scale_bytes(w) + stripe_head_bytes(w))) +
      static_cast<double>(residual_bytes);
  const double ideal = dense_bytes / event_bytes, base = median(times[0]);
  return {{"silent", 1 - spiking / static_cast<double>(s.batch * s.cols)},
          {"listed", static_cast<double>(columns) / static_cast<double>(s.cols)},
          {"tiles_us", base * 1e6},
          {"stripes_us", median(times[1]) * 1e6},
          {"events_us", median(times[2]) * 1e6},
          {"engine_us", median(times[3]) * 1e6},
          {"engine_takes", takes_events(spikes, s.cols, 0, s.batch) ? "events" : "dense"},
          {"tiles_gbps", dense_bytes / base * 1e-9},
          {"events_gbps", event_bytes / median(times[2]) * 1e-9},
          {"ideal", ideal},
          {"speedup", base / median(times[3])},
          {"of_ideal", base / median(times[3]) / ideal}};
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  CLI::App app("Event-driven against dense products");
  app.add_option("--rows", s.rows, "outputs");
  app.add_option("--cols", s.cols, "inputs, a multiple of 32");
  app.add_option("--batch", s.batch, "rows of X");
  app.add_flag("--same", s.same, "rows of X are silent at the same inputs");
  app.add_option("--type", s.type)->check(CLI::IsMember({"q8_0", "q4_0", "q4_1", "w8"}));
  app.add_option("--lines", s.lines, "cache lines a column; default: what the engine takes")
      ->check(CLI::Range(0, 2));
  app.add_option("--threads", s.threads);
  app.add_option("--rounds", s.rounds);
  app.add_option("--megabytes", s.megabytes, "of matrices that take turns");
  app.add_option("--silent", s.silent, "shares of silent inputs");
  CLI11_PARSE(app, argc, argv);
  Bench bench(s);
  nlohmann::ordered_json out = {{"isa", to_string(active_isa())},
                                {"rows", s.rows},
                                {"cols", s.cols},
                                {"type", s.type},
                                {"batch", s.batch},
                                {"lines", bench.stripes.all[0].stripe_lines},
                                {"threads", s.threads},
                                {"shares", nlohmann::ordered_json::array()}};
  for (const double silent : s.silent) out["shares"].push_back(bench.share(silent));
  fmt::print("{}\n", out.dump(1));
  return 0;
}
