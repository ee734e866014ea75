#include "cost/kernel_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "core/fail.h"
#include "core/file.h"
#include "core/huge_buffer.h"
#include "core/paths.h"
#include "cost/bandwidth.h"
#include "cost/decode_timer.h"
#include "engine/session_impl.h"
#include "mneme/version.h"
#include "model/config_names.h"
#include "simd/attention.h"
#include "simd/elementwise.h"
#include "simd/packed_product.h"
#include "simd/recurrence_inputs.h"
#include "simd/spike_product.h"

namespace mneme {
namespace {

constexpr int64_t kCols = 1024, kBatchRows = 64, kQueryTokens = 16;
constexpr uint64_t kSmallStage = 512 << 10, kLargeStage = 8 << 20;  // bytes
constexpr int kBatches = 9;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kWorkingSets[] = {8 * kMiB,   16 * kMiB,  32 * kMiB,  64 * kMiB,
                                     128 * kMiB, 256 * kMiB, 512 * kMiB, 1024 * kMiB};

/// Numbers around 0 that depend on the index alone, about as spread as a normal variable.
std::vector<float> some_values(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  uint32_t state = 12345;
  for (float& value : values) {
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<float>(state >> 8) / float(1u << 24) - 0.5f;
    }
    value = sum * 1.7f;
  }
  return values;
}

const char* name_of(PackedType type) {
  constexpr const char* kNames[] = {"f32",  "f16",  "bf16", "q4_0", "q4_1", "q5_0", "q5_1",
                                    "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "w8"};
  static_assert(std::size(kNames) == static_cast<size_t>(PackedType::w8) + 1);
  return kNames[static_cast<size_t>(type)];
}
const char* name_of(Linear::Input input) {
  switch (input) {
    case Linear::Input::int8:
      return "int8";
    case Linear::Input::spikes:
      return "spikes";
    default:
      return "floats";
  }
}

/// One thread's matrix in its second-level cache, its inputs and outputs.
struct Product {
  Product(PackedType type, Linear::Input of_input, int64_t of_rows) : input(of_input), rows(of_rows) {
    w.type = type;
    w.rows = packed_layout(type).code_bits > 8 ? 64 : 256;
    w.cols = kCols;
    if (input == Linear::Input::spikes) w.stripe_lines = best_stripe_lines(type, w.rows);
    memory = HugeBuffer(matrix_bytes(w));
    std::memset(memory.data(), 0, memory.size());
    w.data = memory.data();
    x = some_values(rows * kCols);
    y.resize(static_cast<size_t>(rows * w.rows));
    if (input == Linear::Input::int8) {
      q.reserve(rows, kCols);
      for (int64_t r = 0; r < rows; ++r)
        quantize_blocks(x.data() + r * kCols, r, kCols, 0, kCols / kBlock, q);
    } else if (input == Linear::Input::spikes) {
      spikes.reserve(rows, kCols, rows == 1);
      for (int64_t r = 0; r < rows; ++r) fire_row({}, x.data() + r * kCols, r, kCols, spikes);
    }
  }
  void run() { run(w, 0, w.tiles(), y.data()); }
  /// Tiles [begin, end) of another matrix with as long rows.
  void run(const PackedMatrix& m, int64_t begin, int64_t end, float* out) const {
    if (input == Linear::Input::int8)
      packed_product(m, q, begin, end, 0, rows, out, m.rows);
    else if (input == Linear::Input::spikes)
      spike_product(m, spikes, begin, end, 0, rows, out, m.rows);
    else
      packed_product(m, x.data(), kCols, begin, end, 0, rows, out, m.rows);
  }
  double macs() const {
    const bool events = input == Linear::Input::spikes && rows == 1 && takes_events(spikes, kCols, 0, 1);
    const auto columns = static_cast<double>(events ? spikes.events.groups * 4 : kCols);
    return static_cast<double>(w.rows) * columns * static_cast<double>(rows);
  }

  Linear::Input input;
  int64_t rows;
  HugeBuffer memory;
  PackedMatrix w;
  QuantizedRows q;
  SpikeRows spikes;
  std::vector<float> x, y;
};

/// One thread's keys and values of one head, in its second-level cache, and queries.
struct Attention {
  Attention(KvType kv, int64_t head_dim, int64_t of_queries) : queries(of_queries) {
    args.geometry = {kv_format(kv), 1, head_dim};
    const int64_t padded = args.geometry.padded_dim();
    const int64_t fit = int64_t{262144} / (2 * padded * args.geometry.value_bytes());
    positions = std::clamp<int64_t>(fit / kPagePositions * kPagePositions, kPagePositions, 1024);
    const int64_t page = args.geometry.page_bytes();
    memory = HugeBuffer(static_cast<uint64_t>(positions / kPagePositions * page));
    const std::vector<float> values = some_values(head_dim);
    for (int64_t p = 0; p < positions; ++p) {
      std::byte* at = memory.data() + p / kPagePositions * page;
      store_kv(args.geometry, at, 0, p % kPagePositions, values.data(), values.data());
      if (p % kPagePositions == 0) pages.push_back(at);
    }
    q = some_values(queries * padded);
    lo.assign(static_cast<size_t>(queries), 0);
    hi.assign(static_cast<size_t>(queries), positions);
    m.resize(static_cast<size_t>(queries));
    l.resize(m.size());
    acc.resize(q.size());
    args.pages = pages.data();
    args.q = q.data();
    args.queries = queries;
    args.lo = lo.data();
    args.hi = hi.data();
  }
  void run() {
    clear();
    attend(args, 0, positions, scratch, {m.data(), l.data(), acc.data()});
  }
  /// The positions of another page; the kernel is told which comes next, as in a pass.
  void run_page(const std::byte* page, const std::byte* next) {
    clear();
    AttentionArgs other = args;
    const std::byte* const both[] = {page, next};
    other.pages = both;
    other.then_position = kPagePositions;
    attend(other, 0, kPagePositions, scratch, {m.data(), l.data(), acc.data()});
  }
  void clear() {
    std::fill(m.begin(), m.end(), -std::numeric_limits<float>::infinity());
    std::fill(l.begin(), l.end(), 0.0f);
    std::fill(acc.begin(), acc.end(), 0.0f);
  }

  int64_t queries, positions = 0;
  HugeBuffer memory;
  AttentionArgs args;
  AttentionScratch scratch;
  std::vector<const std::byte*> pages;
  std::vector<float> q, m, l, acc;
  std::vector<int64_t> lo, hi;
};

/// One head of a recurrence as a decoding pass runs it: a task maps the inputs for its columns again.
struct Recurrence {
  explicit Recurrence(const MixerConfig& of_mixer) : mixer(of_mixer) {
    shape.rule = mixer.type == MixerType::delta ? RecurrenceShape::Rule::delta : RecurrenceShape::Rule::gla;
    shape.kv_heads = 1;
    shape.group = mixer.heads / mixer.kv_heads;
    shape.dim = mixer.head_dim;
    state.resize(static_cast<size_t>(shape.head_values()));
    next = state;
    update.resize(static_cast<size_t>(shape.update_values()));
    inputs = some_values(std::max(shape.group, int64_t{1}) * shape.dim);
    q = y = inputs;
    up = some_values(int64_t{mixer.gate_rank} * shape.dim);
    low = some_values(mixer.gate_rank);
  }
  void prepare() {
    const int64_t dim = shape.dim;
    const ElementMap map = mixer.feature == FeatureMap::relu      ? ElementMap::relu
                           : mixer.feature == FeatureMap::sigmoid ? ElementMap::sigmoid
                           : mixer.feature == FeatureMap::silu    ? ElementMap::silu
                                                                  : ElementMap::identity;
    std::copy(inputs.begin(), inputs.end(), q.begin());
    map_elements(map, 0.1f, shape.group * dim, q.data());
    float *k = update.data() + shape.k_offset(), *decay = update.data() + shape.decay_offset();
    std::copy_n(inputs.data(), dim, update.data());
    std::copy_n(inputs.data(), dim, k);
    map_elements(map, 0.1f, dim, k);
    if (shape.rule == RecurrenceShape::Rule::delta) {
      for (int64_t h = 0; h < shape.group; ++h) l2_normalise(1e-6f, 0.1f, dim, q.data() + h * dim);
      l2_normalise(1e-6f, 1, dim, k);
      *decay = delta_decay(inputs[0], -1.0f, 0.0f);
      update[static_cast<size_t>(shape.beta_offset())] = delta_beta(inputs[1]);
    } else if (mixer.gate == GateType::tied) {
      tied_decays(k, dim, decay);
    } else {
      if (mixer.gate == GateType::low_rank)
        low_rank_gate(low.data(), up.data(), dim, nullptr, mixer.gate_rank, dim, decay);
      else
        std::copy_n(inputs.data(), dim, decay);
      gla_decays(decay, 16.0f, dim, decay);
    }
  }
  void run() {
    for (int64_t begin = 0; begin < shape.columns(); begin += kDecodeColumns) {
      prepare();
      run_recurrence(shape, {update.data(), 0, q.data(), 0, y.data(), 0, 1}, begin,
                     std::min(begin + kDecodeColumns, shape.columns()), state.data(), next.data());
    }
    state.swap(next);
  }

  MixerConfig mixer;
  RecurrenceShape shape;
  std::vector<float> state, next, update, inputs, q, y, up, low;
};

template <class Worker, class... Arguments>
std::vector<std::unique_ptr<Worker>> one_a_thread(int threads, const Arguments&... arguments) {
  std::vector<std::unique_ptr<Worker>> all;
  all.reserve(static_cast<size_t>(threads));
  for (int t = 0; t < threads; ++t) all.push_back(std::make_unique<Worker>(arguments...));
  return all;
}

Json facts_json(int threads) {
  const MachineFigures facts = machine_facts();
  return {{"mneme", kVersion},      {"cpu", facts.cpu},   {"isa", facts.isa},
          {"cores", facts.threads}, {"threads", threads}, {"ram_bytes", facts.ram_bytes}};
}

/// The figures of a file that was measured by this version on this machine; none for any other.
std::map<std::string, double> read_cache(const fs::path& path, const Json& facts) {
  std::map<std::string, double> figures;
  try {
    const Json json = parse_json(read_text_file(path, kMiB), "kernel times");
    if (!json.is_object() || !json.contains("machine") || json["machine"] != facts) return {};
    if (!json.contains("seconds") || !json["seconds"].is_object()) return {};
    for (const auto& [name, value] : json["seconds"].items()) {
      if (!value.is_number()) return {};
      const auto seconds = value.get<double>();
      if (!std::isfinite(seconds) || seconds <= 0 || seconds > 10) return {};
      figures[name] = seconds;
    }
  } catch (const Error&) {
    return {};  // no file, or one that cannot be trusted: measure again
  }
  return figures;
}

}  // namespace

KernelTimes::KernelTimes(int threads, FigureSource source, std::function<void(std::string_view)> on_step)
    : threads_(threads), source_(source), on_step_(std::move(on_step)) {
  require(threads >= 1, ErrorCode::invalid_argument, "{} threads: at least 1 is needed", threads);
  if (source != FigureSource::measure) known_ = read_cache(cache_path(threads_), facts_json(threads_));
}
KernelTimes::~KernelTimes() = default;

fs::path KernelTimes::cache_path(int threads) {
  return cache_folder() / fmt::format("kernel_times_{}.json", threads);
}

void KernelTimes::save() const {
  if (!measured_) return;
  const Json facts = facts_json(threads_);
  const fs::path path = cache_path(threads_);
  std::map<std::string, double> all = read_cache(path, facts);
  for (const auto& [name, seconds] : known_) all[name] = seconds;
  ensure_folder(path.parent_path());
  AtomicFile file(path);
  file.write(Json{{"machine", facts}, {"seconds", all}}.dump(2) + "\n");
  file.commit();
}

double KernelTimes::figure(const std::string& name, const std::function<double()>& measure) {
  if (const auto used = used_.find(name); used != used_.end()) return used->second;
  if (const auto known = known_.find(name); known != known_.end()) {
    cached_ = true;
    return used_[name] = known->second;
  }
  require(source_ != FigureSource::cached, ErrorCode::not_found,
          "{} has no time of \"{}\"; run it once with --machine measure", cache_path(threads_).string(),
          name);
  if (on_step_) on_step_(name);
  measured_ = true;
  return used_[name] = known_[name] = std::max(measure(), 1e-15);
}

ThreadPool& KernelTimes::pool() {
  if (!pool_) pool_ = std::make_unique<ThreadPool>(threads_, false);
  return *pool_;
}

double KernelTimes::on_all_threads(const std::function<void(int thread)>& work, double shortest) {
  using Clock = std::chrono::steady_clock;
  int64_t repeats = 1;
  const auto batch = [&] {
    const auto start = Clock::now();
    pool().run([&](int thread) {
      for (int64_t i = 0; i < repeats; ++i) work(thread);
    });
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  batch();
  while (batch() < shortest && repeats < (int64_t{1} << 40)) repeats *= 2;
  std::vector<double> seconds;
  seconds.reserve(kBatches);
  for (int i = 0; i < kBatches; ++i) seconds.push_back(batch() / static_cast<double>(repeats));
  // The lower quartile: what the machine reaches, whatever else takes a core for some of the batches.
  std::nth_element(seconds.begin(), seconds.begin() + kBatches / 4, seconds.end());
  return seconds[kBatches / 4];
}

double KernelTimes::by_working_set(const std::string& name, double working_set,
                                   const std::function<double(uint64_t bytes)>& measure) {
  const uint64_t most = bandwidth_buffer_bytes(kWorkingSets[std::size(kWorkingSets) - 1]);
  const auto at = [&](size_t i) {
    return figure(fmt::format("{} {} MiB", name, kWorkingSets[i] / kMiB),
                  [&] { return measure(kWorkingSets[i]); });
  };
  size_t above = 0;
  while (above + 1 < std::size(kWorkingSets) && static_cast<double>(kWorkingSets[above]) < working_set &&
         kWorkingSets[above + 1] <= most)
    ++above;
  const auto upper = static_cast<double>(kWorkingSets[above]);
  if (above == 0 || working_set >= upper) return at(above);
  const auto lower = static_cast<double>(kWorkingSets[above - 1]);
  const double part = std::log(working_set / lower) / std::log(upper / lower);
  return (1 - part) * at(above - 1) + part * at(above);
}

double KernelTimes::read(double working_set) {
  return by_working_set("read", working_set, [&](uint64_t bytes) {
    HugeBuffer buffer(bytes);
    const auto threads = static_cast<uint64_t>(threads_);
    const uint64_t share = bytes / threads / 4096 * 4096;
    const auto slice = [&](int thread) { return buffer.data() + static_cast<uint64_t>(thread) * share; };
    pool().run([&](int thread) { std::memset(slice(thread), thread + 1, share); });
    std::atomic<uint64_t> sum{0};  // keeps the reads alive
    const double seconds = on_all_threads([&](int thread) {
      sum += sum_words({reinterpret_cast<const uint64_t*>(slice(thread)), share / 8});
    });
    return seconds / static_cast<double>(share * threads);
  });
}

double KernelTimes::time_stages(PackedType type, Linear::Input input, uint64_t bytes, uint64_t stage_bytes) {
  Product one(type, input, 1);  // inputs of one row, and the layout
  PackedMatrix w = one.w;
  const int64_t unit = w.stripe_lines > 0 ? stripe_tiles(w) : 1;
  const int64_t unit_bytes = w.stripe_lines > 0 ? stripe_bytes(w) : packed_tile_bytes(type, kCols);
  const int64_t units = std::max<int64_t>(1, static_cast<int64_t>(stage_bytes) / unit_bytes);
  const int64_t stages = std::max<int64_t>(1, static_cast<int64_t>(bytes) / (units * unit_bytes));
  const int64_t tiles = units * unit;
  w.rows = stages * tiles * kTileRows;
  HugeBuffer memory(static_cast<uint64_t>(stages * units * unit_bytes));
  const uint64_t share = memory.size() / static_cast<uint64_t>(threads_);
  pool().run([&](int t) { std::memset(memory.data() + static_cast<uint64_t>(t) * share, 0, share); });
  w.data = memory.data();
  std::vector<float> y(static_cast<size_t>(w.rows));
  const int64_t group = (std::max<int64_t>(1, units / (int64_t{8} * threads_))) * unit;
  const int64_t tasks = (tiles + group - 1) / group;
  const double pass = on_all_threads(
      [&](int thread) {
        for (int64_t s = 0; s < stages; ++s) {
          const int slot = static_cast<int>(s & 1);
          pool().share_tasks(slot, thread, tasks);
          pool().barrier(thread);
          for (int64_t task = pool().next_task(slot, thread); task >= 0;
               task = pool().next_task(slot, thread)) {
            const int64_t begin = s * tiles + task * group, end = std::min(begin + group, (s + 1) * tiles);
            one.run(w, begin, end, y.data());
          }
        }
        pool().barrier(thread);  // so that the next pass may use the lists of tasks again
      },
      5e-3);
  // Bytes that were touched: where inputs are silent, those of the list.
  const double listed = one.macs() / static_cast<double>(one.w.rows * kCols);
  return pass / static_cast<double>(stages) / (input == Linear::Input::spikes ? listed : 1.0);
}

KernelTimes::Stream KernelTimes::stream(PackedType type, Linear::Input input, double working_set) {
  const std::string name = fmt::format("{} {}", name_of(type), name_of(input));
  const auto large_of = [](uint64_t bytes) { return std::min(kLargeStage, bytes / 2); };
  const double small = by_working_set("small stages " + name, working_set, [&](uint64_t bytes) {
    return time_stages(type, input, bytes, kSmallStage);
  });
  const double large = by_working_set("large stages " + name, working_set, [&](uint64_t bytes) {
    return time_stages(type, input, bytes, large_of(bytes)) * static_cast<double>(kLargeStage) /
           static_cast<double>(large_of(bytes));
  });
  Stream out;
  out.per_byte = (large - small) / static_cast<double>(kLargeStage - kSmallStage);
  if (out.per_byte <= 0) out.per_byte = large / static_cast<double>(kLargeStage);
  out.per_stage = std::max(0.0, small - out.per_byte * static_cast<double>(kSmallStage));
  return out;
}

double KernelTimes::stream_attention(KvType kv, uint32_t head_dim, uint32_t group, double working_set) {
  const std::string name = fmt::format("attend {} {}x{} from", kv_name(kv), group, head_dim);
  return by_working_set(name, working_set, [&](uint64_t bytes) {
    const auto workers = one_a_thread<Attention>(threads_, kv, int64_t{head_dim}, int64_t{group});
    const auto page = static_cast<uint64_t>(workers[0]->args.geometry.page_bytes());
    const uint64_t pages = std::max<uint64_t>(1, bytes / page / static_cast<uint64_t>(threads_));
    HugeBuffer memory(pages * page * static_cast<uint64_t>(threads_));
    const auto first = [&](int t) { return memory.data() + static_cast<uint64_t>(t) * pages * page; };
    pool().run([&](int t) {
      for (uint64_t p = 0; p < pages; ++p)
        std::memcpy(first(t) + p * page, workers[static_cast<size_t>(t)]->memory.data(), page);
    });
    const double seconds = on_all_threads([&](int t) {
      for (uint64_t p = 0; p < pages; ++p)
        workers[static_cast<size_t>(t)]->run_page(first(t) + p * page, first(t) + (p + 1) % pages * page);
    });
    return seconds / static_cast<double>(pages * kPagePositions);
  });
}

double KernelTimes::time_product(const char* what, PackedType type, Linear::Input input, int64_t rows) {
  return figure(fmt::format("{} {} {}", what, name_of(type), name_of(input)), [&] {
    const auto workers = one_a_thread<Product>(threads_, type, input, rows);
    const double seconds = on_all_threads([&](int t) { workers[static_cast<size_t>(t)]->run(); });
    return seconds / workers[0]->macs() / threads_;
  });
}

double KernelTimes::product(PackedType type, Linear::Input input) {
  return time_product("product", type, input, 1);
}

double KernelTimes::batch_product(PackedType type, Linear::Input input) {
  return time_product("batch", type, input, kBatchRows);
}

double KernelTimes::time_attention(const char* what, KvType kv, uint32_t head_dim, uint32_t group,
                                   int64_t tokens) {
  return figure(fmt::format("{} {} {}x{}", what, kv_name(kv), group, head_dim), [&] {
    const auto workers = one_a_thread<Attention>(threads_, kv, int64_t{head_dim}, int64_t{group} * tokens);
    const double seconds = on_all_threads([&](int t) { workers[static_cast<size_t>(t)]->run(); });
    return seconds / static_cast<double>(workers[0]->positions * tokens);
  });
}

double KernelTimes::attention(KvType kv, uint32_t head_dim, uint32_t group) {
  return time_attention("attend", kv, head_dim, group, 1);
}

double KernelTimes::batch_attention(KvType kv, uint32_t head_dim, uint32_t group) {
  return time_attention("attend batch", kv, head_dim, group, kQueryTokens);
}

double KernelTimes::recurrence(const MixerConfig& mixer) {
  const bool delta = mixer.type == MixerType::delta;
  const std::string gate = delta                            ? ""
                           : mixer.gate == GateType::tied   ? " tied"
                           : mixer.gate == GateType::matrix ? " matrix"
                                                            : fmt::format(" rank {}", mixer.gate_rank);
  return figure(fmt::format("{} {}x{} {}{}", delta ? "delta" : "gla", mixer.heads / mixer.kv_heads,
                            mixer.head_dim, config_names::word(config_names::kFeatures, mixer.feature), gate),
                [&] {
                  const auto workers = one_a_thread<Recurrence>(threads_, mixer);
                  return on_all_threads([&](int t) { workers[static_cast<size_t>(t)]->run(); });
                });
}

double KernelTimes::row(Linear::Input input) {
  return figure(fmt::format("row {}", name_of(input)), [&] {
    const std::vector<float> x = some_values(kCols), weight(x.size(), 1.0f);
    struct Worker {
      std::vector<float> out = std::vector<float>(static_cast<size_t>(kCols));
      QuantizedRows q;
      SpikeRows spikes;
    };
    const auto workers = one_a_thread<Worker>(threads_);
    for (const auto& worker : workers) {
      worker->q.reserve(1, kCols);
      worker->spikes.reserve(1, kCols, true);
    }
    const double seconds = on_all_threads([&](int t) {
      Worker& my = *workers[static_cast<size_t>(t)];
      rms_norm(x.data(), weight.data(), 1e-5f, kCols, my.out.data());
      if (input == Linear::Input::int8) quantize_blocks(my.out.data(), 0, kCols, 0, kCols / kBlock, my.q);
      if (input == Linear::Input::spikes) fire_row({}, my.out.data(), 0, kCols, my.spikes);
    });
    return seconds / static_cast<double>(kCols);
  });
}

double KernelTimes::hidden() {
  return figure("hidden", [&] {
    const std::vector<float> x = some_values(kCols);
    struct Worker {
      std::vector<float> out = std::vector<float>(static_cast<size_t>(kCols));
      QuantizedRows q;
    };
    const auto workers = one_a_thread<Worker>(threads_);
    for (const auto& worker : workers) worker->q.reserve(1, kCols);
    const double seconds = on_all_threads([&](int t) {
      Worker& my = *workers[static_cast<size_t>(t)];
      gated_act(GateAct::silu, x.data(), x.data(), kCols, my.out.data());
      quantize_blocks(my.out.data(), 0, kCols, 0, kCols / kBlock, my.q);
    });
    return seconds / static_cast<double>(kCols);
  });
}

double KernelTimes::stage() {
  return figure("stage", [&] {
    constexpr int kStages = 64;
    const int64_t tasks = int64_t{8} * threads_;
    const auto start_stage = [&](int slot, int thread) {
      pool().share_tasks(slot, thread, tasks);
      pool().barrier(thread);
    };
    return on_all_threads([&](int thread) {
             for (int s = 0; s < kStages; ++s) {
               const int slot = s & 1;
               start_stage(slot, thread);
               while (pool().next_task(slot, thread) >= 0) {
               }
             }
           }) /
           kStages;
  });
}

double KernelTimes::job() {
  return figure("job", [&] {
    std::vector<double> seconds;
    for (int i = 0; i < 200; ++i) {
      const auto start = std::chrono::steady_clock::now();
      pool().run([](int) {});
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return median_of(seconds);
  });
}

}  // namespace mneme
