// The plan: a model's config compiled once into two flat lists of fused stages, decode and prefill. A forward
// pass walks a list; there is no graph per token, no look-up by name, no allocation after warm-up.
//
//   decode   one token for each of 1..kMaxDecodeRows sequences. Every thread repeats the cheap part (norm,
//            rounding to int8) for itself, so that a stage needs one barrier: five a layer.
//   prefill  a chunk of tokens of one or more sequences. Rows are shared out, so norms are stages of their
//            own.
//
// A stage is a kernel with its arguments. A new block adds stages; the walker knows none of them.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "memory/engram_hash.h"
#include "mneme/memory.h"
#include "mneme/tokenizer.h"
#include "model/router.h"
#include "model/sequence_state.h"
#include "simd/packed_product.h"
#include "simd/spike.h"

namespace mneme {

inline constexpr int64_t kMaxDecodeRows = 8;

struct ModelImpl;
class BlockHook;
class ProjectionObserver;

/// Consecutive rows of a step that belong to one sequence.
struct Slice {
  SequenceState* state = nullptr;
  int64_t row = 0;       // first row of the step
  int64_t count = 0;     // rows
  int64_t position = 0;  // of the first row, counted from the first sink token
  std::span<const TokenId> before =
      {};                           // tokens of the sequence before the first row; memories look back on them
  BlockHook* block_hook = nullptr;  // sees and changes what sparse mixers choose; null but in tests
  ProjectionObserver* observer = nullptr;  // sees what projections read; null: nobody looks
  RouteObserver* routes = nullptr;         // sees what routers choose; null: nobody looks
};

/// Activations in the forms that the products of a stage ask for.
struct Activations {
  QuantizedRows q;
  std::vector<float> f;        // [rows, cols]
  std::vector<float> rounded;  // [rows, cols]: q as floats
  std::vector<float> int4;     // [rows, cols]: rounded to int4, as floats
  struct Spikes {
    SpikeRows rows;
    std::vector<float> f;  // [rows, cols]: counts times threshold
  };
  std::vector<Spikes> spikes;  // [Linear::spike_slot]
};

/// Scratch of one thread for choosing blocks of keys and for the queries of one block.
struct SparseScratch {
  std::vector<float> scores;
  std::vector<uint64_t> order, chosen;
  std::vector<uint32_t> blocks, sink_blocks;
  std::vector<int64_t> positions;
  std::vector<float> q, m, l, acc;  // of the queries that chose a block
  std::vector<int64_t> lo, hi;
};

/// The rows of a pass that go to one other process (expert_rows.h). Kept between passes.
struct LeavingRows {
  std::vector<int64_t> rows;
  size_t requested = 0, answered = 0;  // of these, the first so many
};

/// Buffers of one forward pass, reused by the next; grown on first use of a size, never shrunk.
struct Workspace {
  struct Thread {
    Activations input;
    std::vector<float> row, q, product;
    AttentionScratch attention;
    std::vector<float> m, l, acc;
    std::vector<int64_t> lo, hi;
    SparseScratch sparse;
    RouterScratch router;
    Routing routing;  // at decode
    // At decode, where experts are read from disk: what the router of the next layer would choose.
    Activations ahead_input;
    std::vector<Route> ahead_routes;
    std::vector<int32_t> ahead;
    std::vector<float> factors;                         // [rows] at decode: of the shared expert's output
    std::vector<Activations> hidden_rows, shared_rows;  // at decode: rows whose form needs them whole
  };
  std::vector<float> x;          // [rows, d_model]: the residual stream
  std::vector<float> qkv;        // [rows, QkvShape::total()]
  std::vector<float> attention;  // [rows, heads * head_dim]
  std::vector<float> updates;    // [rows, kv_heads, update_values]: what tokens write into a recurrence
  std::vector<float>
      branch;  // [branch][rows, d_model]: output of a mixer or feed-forward that still gets a norm
  std::vector<float> gate;  // [rows, hidden]
  std::vector<float> up;    // [rows, hidden]
  Activations input;        // of the running prefill stage, or the hidden rows at decode
  std::vector<float> m, l,
      acc;  // partial attention at decode: [row][kv_head][part][group], acc also [padded_dim]
  std::vector<std::vector<uint64_t>> chosen;  // [row][kv_head] at decode: blocks of a sparse mixer
  std::vector<float> cos, sin;                // [rope][rows][dims / 2]
  struct Memory {
    std::vector<TokenClass> previous;  // classes before a slice
    std::vector<TokenClass> classes;   // [rows]
    std::vector<TokenClass> contexts;  // [rows, max_ngram]
    std::vector<uint64_t> rows;        // [rows, rows_per_token]
    RowBatch batch;                    // the records of `rows`
    std::vector<float> normed;         // [rows, d_model]: what the convolution reads
  };
  std::vector<Memory> memory;  // [module]
  std::vector<float> kv;       // [rows, 2 d_model]: key and value of a module
  std::vector<Thread> threads;
  /// A pair is a row and one of its experts. At prefill pairs are sorted by expert for the whole pass.
  struct Experts {
    std::vector<float> scores;  // [rows, choices]
    Routing routing;
    Activations input;                          // [pairs, d_model]
    std::vector<float> gate, up;                // [pairs, hidden]
    Activations hidden;                         // [pairs, hidden]
    std::vector<float> out;                     // [pairs, d_model]
    std::vector<float> factors;                 // [rows]: of the shared expert's output
    std::vector<float> shared_gate, shared_up;  // [rows, shared width]
    Activations shared_hidden;                  // [rows, shared width]
    std::vector<float> shared_out;              // [rows, d_model]
    Activations coded;                          // [rows, d_model]: of rows that go to other processes
    std::vector<LeavingRows> leaving;           // [process]
    // Experts that come from disk are worked on in waves of as many as have room: [wave_begin, wave_end) now.
    int32_t wave_begin = 0, wave_end = INT32_MAX;
    std::vector<float> ahead_scores;  // [rows, choices]: a guess at the router of the next layer
    bool in_wave(int32_t expert) const { return expert >= wave_begin && expert < wave_end; }
    bool first_wave() const { return wave_begin == 0; }
  };
  Experts experts;

  /// The first thing that went wrong inside a stage; the pass ends after the layer and throws it.
  /// Thread-safe.
  void fail(std::exception_ptr error) {
    if (!failed.exchange(true)) failure = std::move(error);
  }
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
};

/// One pass over the plan.
struct Step {
  const ModelImpl& model;
  Workspace& workspace;
  std::span<const Slice> slices;
  std::span<const TokenId> ids;         // [rows]
  std::span<const int64_t> logit_rows;  // rows whose logits are wanted
  float* logits = nullptr;              // [logit_rows, vocab]
  std::function<bool()> cancelled;      // polled by thread 0 between layers; may be empty
  const float* embeddings = nullptr;    // [rows, d_model] instead of those of the ids: the sink tokens
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
};

class Stage {
 public:
  virtual ~Stage() = default;
  /// One line for people: name, shapes, types.
  virtual std::string describe() const = 0;
  /// How many independent pieces the stage has for this step.
  virtual int64_t tasks(const Step& step) const = 0;
  /// On every thread before its tasks: what each thread keeps for itself.
  virtual void begin(Step&, int /*thread*/) const {}
  virtual void run(Step& step, int thread, int64_t task) const = 0;
  /// True where a step may be abandoned.
  bool ends_layer = false;
  /// True where run() may wait for a disk or another process.
  bool waits_for_device = false;
};

struct Plan {
  std::vector<std::unique_ptr<Stage>> decode, prefill;
};

/// `probes`: with the stages that show inputs to a ProjectionObserver.
Plan compile_plan(const ModelImpl& model, bool probes = false);

/// Walks a list of stages on all threads. False: a layer was the last one to be finished because `abandoned`
/// (called after each by thread 0; may be empty) said so.
bool walk_stages(ThreadPool& pool, const std::vector<std::unique_ptr<Stage>>& stages, Step& step,
                 const std::function<bool()>& abandoned = {});

/// Walks, of the plan with probes if a slice has an observer, the decode list if every slice has one row and
/// there are at most kMaxDecodeRows, else the prefill list. Returns false if it was cancelled (the sequences'
/// caches then hold unfinished rows beyond their positions, which the next pass overwrites). Throws what a
/// stage could not do: Error(io) if a memory's rows cannot be read; the sequences are then as after a
/// cancellation.
bool run_step(ThreadPool& pool, Step& step);

}  // namespace mneme
