#include "train/run/loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "core/fail.h"
#include "core/thread_pool.h"
#include "train/hosts/table_shards.h"
#include "train/run/checkpoint.h"
#include "train/run/curves.h"
#include "train/run/diagnosis.h"
#include "train/run/flops.h"
#include "train/run/out_lock.h"
#include "train/run/report.h"
#include "train/run/run_setup.h"
#include "train/run/sample.h"
#include "train/run/together.h"

namespace mneme::train {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The rows of sequences [first, first + count) of a batch.
BatchRows part_of(const BatchRows& rows, int64_t first, int64_t count) {
  BatchRows out = rows;
  for (auto& [table, layers] : out)
    for (auto& [layer, touched] : layers) {
      touched.where = touched.where.narrow(0, first, count);
      if (touched.silent.defined()) touched.silent = touched.silent.narrow(0, first, count);
    }
  return out;
}

Tensor bytes_of(const std::string& text) {
  return at::tensor(std::vector<uint8_t>(text.begin(), text.end()), at::kByte);
}

std::string text_of(const Tensor& bytes) {
  return {reinterpret_cast<const char*>(bytes.data_ptr<uint8_t>()), static_cast<size_t>(bytes.numel())};
}

class Loop {
 public:
  Loop(const RunConfig& run, const TrainOptions& options, ProcessGroup& group)
      : run_(run), options_(options), group_(group), report_(options.json, options.quiet, group.is_first()) {}

  Ending go() {
    prepare();
    // Killed between its last checkpoint and its end, a run that stopped early would go on.
    Ending ending = enough() ? Ending::stopped_early : Ending::finished;
    while (state_.step < run_.steps && ending == Ending::finished) {
      take_step();
      const bool last = state_.step == run_.steps;
      if (due(run_.validate.every) || (last && run_.validate.every > 0)) validate();
      if (enough()) ending = Ending::stopped_early;
      if (due(run_.samples.every)) write_samples();
      if (group_.any(options_.interrupted() || report_.reader_is_gone())) ending = Ending::interrupted;
      if (last || ending != Ending::finished || due(run_.save.every)) save();
    }
    finish(ending);
    return ending;
  }

 private:
  const RunConfig& run_;
  const TrainOptions& options_;
  ProcessGroup& group_;
  Report report_;
  std::unique_ptr<OutLock> lock_;
  RunTokenizer tokenizer_;
  std::unique_ptr<Training> training_;
  std::unique_ptr<WholeTables> whole_;   // the tables of training_, or null:
  std::unique_ptr<TableShards> shards_;  // in a run of several processes
  RunData data_;
  RunState state_;
  double flops_per_token_ = 0, machine_flops_ = 0;
  SpikeTally tally_;                 // of this process's sequences in the step
  ExpertTally experts_;              // likewise; after take_step() that of all processes
  ExpertTally since_report_;         // of the steps since experts were reported
  std::optional<int64_t> bad_pass_;  // the first of its sequences, where a loss is not finite

  bool due(uint64_t every) const { return every > 0 && state_.step % every == 0; }
  at::Device device() const { return training_->parameters.at("token_embd.weight").device(); }
  PassOptions pass() const {
    PassOptions out;
    out.checkpoint_layers = run_.checkpoint_layers;
    out.bfloat16 = run_.precision == Precision::bf16;
    return out;
  }
  uint64_t share() const { return run_.batch.global() / group_.size(); }

  void prepare();
  void resume_from(const CheckpointFolder& checkpoint);
  Tensor sequences(const DataOrder& order, uint64_t first, uint64_t count) const;
  void take_step();
  BatchRows touch(const Tensor& inputs) const;
  double gradients(const Tensor& tokens, BatchRows& rows);
  Tensor loss_or_nan(const Tensor& inputs, const Tensor& targets, const BatchRows& rows,
                     const PassOptions& options) const;
  void count_experts();
  void report_experts();
  std::vector<Tensor> all_gradients(const BatchRows& rows) const;
  [[noreturn]] void fail_at(uint64_t step, double loss, const Tensor& inputs, const BatchRows& rows);
  void update(double norm, BatchRows& rows);
  void validate();
  bool enough() const {
    return run_.early_stop.patience > 0 && state_.validations_without_gain >= run_.early_stop.patience;
  }
  void at_first(const std::function<void()>& work);
  TableRows& table_rows() { return shards_ ? static_cast<TableRows&>(*shards_) : *whole_; }
  void write_samples();
  void save();
  void finish(Ending ending);
};

void Loop::prepare() {
  require(!run_.out.empty(), ErrorCode::invalid_argument,
          "out is missing: the folder that gets checkpoints and logs (or --out FOLDER)");
  require(run_.batch.global() % group_.size() == 0, ErrorCode::invalid_argument,
          "batch.sequences x batch.accumulate is {}, which {} processes cannot divide evenly",
          run_.batch.global(), group_.size());
  if (group_.is_first()) {
    std::error_code error;
    fs::create_directories(run_.out, error);
    require(!error, ErrorCode::io, "cannot create {}: {}", run_.out.string(), error.message());
    lock_ = std::make_unique<OutLock>(run_.out);
    remove_leftovers(run_.out);
  }
  group_.barrier();
  at::set_num_threads(run_.threads > 0 ? static_cast<int>(run_.threads) : available_cores());
  std::optional<CheckpointFolder> checkpoint;
  if (options_.resume && group_.is_first()) {
    checkpoint = newest_checkpoint(
        run_.out, [&](const std::string& problem) { report_.say("mneme-train: left aside: " + problem); });
    if (!checkpoint)
      report_.say(fmt::format("mneme-train: {} holds no checkpoint yet; starting at the first step",
                              run_.out.string()));
  } else if (group_.is_first()) {
    require(!fs::exists(run_.out / "latest") && !has_checkpoint(run_.out), ErrorCode::invalid_argument,
            "{} holds a run already; go on with it by --resume, or choose another --out", run_.out.string());
  }
  tokenizer_ = RunTokenizer::load(tokenizer_path(run_));
  const bool resumed = group_.any(checkpoint.has_value());
  training_ = make_training(run_, tokenizer_, group_.size() == 1);
  if (group_.size() > 1)
    shards_ = make_table_shards(run_, *training_, group_);
  else
    whole_ = std::make_unique<WholeTables>(*training_);
  data_ = open_data(run_, tokenizer_, training_->config.vocab, run_.out, resumed, group_,
                    [&](uint64_t, uint64_t) { return !options_.interrupted(); });
  state_.run = run_.to_json();
  state_.data = data_.hashes;
  require_same(state_.data.dump(-1, ' ', false, Json::error_handler_t::replace), "the data or tokenizer",
               group_);
  require_same(model_fields(training_->config).dump(), "the model", group_);
  at_first([&] {
    if (checkpoint)
      resume_from(*checkpoint);
    else
      load_tables(run_, *training_, table_rows());
  });
  copy_from_first(*training_, state_, group_);
  report_.open_log(run_.out / "log.jsonl", state_.log_bytes);
  if (checkpoint)
    report_.event({{"step", state_.step}, {"checkpoint", checkpoint->path.filename().string()}},
                  fmt::format("mneme-train: going on after step {} of {}", state_.step, run_.steps));
  if (group_.is_first()) {
    AtomicFile file(run_.out / "run.json");
    file.write(state_.run.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
    file.commit();
  }
  flops_per_token_ = flops_per_token(training_->config, run_.data.length);
  if (device().is_cpu()) machine_flops_ = measured_flops() * group_.size();
  report_.say(fmt::format("mneme-train: {} parameters, {} tokens to learn from, {} a step, {} threads",
                          training_->parameters.count(), data_.train->shards().tokens(),
                          run_.tokens_per_step(), at::get_num_threads()));
}

void Loop::resume_from(const CheckpointFolder& checkpoint) {
  const RunState& saved = checkpoint.state;
  const std::string field = first_difference(saved.run, state_.run, saved.step);
  require(
      field.empty(), ErrorCode::mismatch,
      "{} was trained with another config: \"{}\" differs; resume with the config in {}, or choose another "
      "--out",
      checkpoint.path.string(), field, (run_.out / "run.json").string());
  for (const char* const part : {"train", "tokenizer"})
    require(saved.data.value(part, "") == state_.data.value(part, ""), ErrorCode::mismatch,
            "{} was trained on other data: the {} is not the one it began with", checkpoint.path.string(),
            std::string_view(part) == "train" ? "text of data.train" : part);
  restore_checkpoint(checkpoint, *training_, table_rows());
  const Json run = state_.run, data = state_.data;
  state_ = saved;
  state_.run = run;
  state_.data = data;
}

Tensor Loop::sequences(const DataOrder& order, uint64_t first, uint64_t count) const {
  const auto width = static_cast<int64_t>(order.length()) + 1;
  Tensor out = at::empty({static_cast<int64_t>(count), width}, at::kLong);
  for (uint64_t i = 0; i < count; ++i)
    order.fill(first + i * group_.size() + group_.rank(),
               {out.data_ptr<int64_t>() + static_cast<int64_t>(i) * width, static_cast<size_t>(width)});
  return out;
}

/// The rows that `inputs` read. All processes call it together.
BatchRows Loop::touch(const Tensor& inputs) const {
  return shards_ ? shards_->touch(inputs)
                 : touch_rows(training_->config, training_->ids, training_->tables, inputs);
}

double Loop::gradients(const Tensor& tokens, BatchRows& rows) {
  const int64_t all = tokens.size(0), length = tokens.size(1) - 1;
  const Tensor inputs = tokens.narrow(1, 0, length).to(device()),
               targets = tokens.narrow(1, 1, length).to(device());
  PassOptions options = pass();
  tally_ = {};
  experts_ = ExpertTally(training_->config);
  options.spikes.tally = &tally_;
  options.experts.tally = experts_.none() ? nullptr : &experts_;
  options.experts.null_share = run_.experts.null_share;
  double loss = 0;
  for (int64_t first = 0; first < all; first += run_.batch.sequences) {
    const int64_t count = std::min<int64_t>(run_.batch.sequences, all - first);
    const double weight = static_cast<double>(count) / static_cast<double>(all);
    options.experts.balance = run_.experts.balance * weight;
    options.experts.entropy = run_.experts.entropy * weight;
    const Tensor part = loss_or_nan(inputs.narrow(0, first, count), targets.narrow(0, first, count),
                                    part_of(rows, first, count), options);
    loss += part.item<double>() * weight;
    if (!std::isfinite(loss)) {
      bad_pass_ = first;
      break;
    }
    (part * weight).backward();
  }
  return loss;
}

/// NaN where a router's scores are not finite: in several processes all end by the loss, which they share,
/// and fail_at() finds the router again.
Tensor Loop::loss_or_nan(const Tensor& inputs, const Tensor& targets, const BatchRows& rows,
                         const PassOptions& options) const {
  try {
    return training_->decoder->loss(inputs, targets, rows, options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::corrupt) throw;
    return at::full({}, std::nan(""));
  }
}

/// What the routers of all processes chose in this step: into the report, and the biases that it moves.
void Loop::count_experts() {
  if (experts_.none()) return;
  const Tensor all = experts_.numbers();
  group_.all_reduce_sum(all);
  experts_.restore(all);
  since_report_.add(experts_);
  balance_biases(training_->config, training_->parameters, experts_, run_.experts);
}

void Loop::report_experts() {
  if (since_report_.none()) return;
  report_.event({{"step", state_.step}, {"experts", since_report_.report()}}, "");
  since_report_ = {};
}

std::vector<Tensor> Loop::all_gradients(const BatchRows& rows) const {
  std::vector<Tensor> out;
  for (const std::string& name : training_->parameters.names()) {
    const Tensor& value = training_->parameters.at(name);
    if (!value.grad().defined()) value.mutable_grad() = at::zeros_like(value.detach());
    out.push_back(value.grad());
  }
  for_leaves(rows,
             [&](const std::string&, const TouchedRows& touched) { out.push_back(touched.rows.grad()); });
  return out;
}

void Loop::take_step() {
  const auto start = Clock::now();
  const uint64_t step = state_.step + 1;
  group_.set_step(step);
  const Tensor tokens = sequences(*data_.train, state_.sequence, share());
  const Tensor inputs = tokens.narrow(1, 0, tokens.size(1) - 1);
  BatchRows rows = touch(inputs);
  const Tensor loss = at::full({1}, gradients(tokens, rows), at::kDouble);
  group_.all_reduce_mean(loss);
  std::vector<Tensor> dense = all_gradients({});
  if (std::isfinite(loss.item<double>())) group_.all_reduce_mean(dense);
  const double norm = shards_ ? std::sqrt(std::pow(gradient_norm(dense), 2) + shards_->collect(rows))
                              : gradient_norm(all_gradients(rows));
  if (!std::isfinite(loss.item<double>()) || !std::isfinite(norm))
    fail_at(step, loss.item<double>(), inputs, rows);
  update(norm, rows);
  count_experts();
  state_.step = step;
  state_.sequence += run_.batch.global();
  const double seconds = since(start);
  state_.seconds += seconds;
  StepReport report;
  report.step = step;
  report.steps = run_.steps;
  report.loss = loss.item<double>();
  report.lr = run_.optimiser.lr * schedule_factor(run_.schedule, step, run_.steps);
  report.gradient_norm = norm;
  report.tokens = step * run_.tokens_per_step();
  report.seconds = state_.seconds;
  report.tokens_per_second = static_cast<double>(run_.tokens_per_step()) / seconds;
  if (!tally_.empty()) report.silent = tally_.silent();
  if (!experts_.none())
    report.experts = StepReport::Experts{experts_.mean_active(), experts_.variation(), experts_.starved()};
  if (machine_flops_ > 0) report.mfu = report.tokens_per_second * flops_per_token_ / machine_flops_;
  report_.step(report);
}

/// Ends a run whose loss or gradient is not finite, in all processes at once.
void Loop::fail_at(uint64_t step, double loss, const Tensor& inputs, const BatchRows& rows) {
  report_.finish_line();
  std::string where;
  if (bad_pass_) {
    const int64_t count = std::min<int64_t>(run_.batch.sequences, inputs.size(0) - *bad_pass_);
    where = first_not_finite(*training_, inputs.narrow(0, *bad_pass_, count).to(device()),
                             part_of(rows, *bad_pass_, count), pass());
  } else if (std::isfinite(loss)) {
    where = first_gradient_not_finite(*training_, rows);
  }
  // Only the sequences of another process may show it.
  for (const Tensor& found : group_.all_to_all(std::vector<Tensor>(group_.size(), bytes_of(where))))
    if (where.empty()) where = text_of(found);
  fail(ErrorCode::corrupt,
       "step {}: the {} is not a finite number; it began in {}. The checkpoints before it stay; a new run "
       "from one of them (\"model\": its folder) with a lower optimiser.lr or optimiser.clip may help",
       step, std::isfinite(loss) ? "norm of the gradients" : "loss", where.empty() ? "their sum" : where);
}

void Loop::update(double norm, BatchRows& rows) {
  const double clip = run_.optimiser.clip;
  const double scale = clip > 0 && norm > clip ? clip / norm : 1.0;
  const double lr = run_.optimiser.lr * schedule_factor(run_.schedule, state_.step + 1, run_.steps);
  training_->optimiser->step(lr, scale);
  if (shards_) shards_->update(lr, scale);
  for_leaves(shards_ ? BatchRows() : rows, [&](const std::string& table, const TouchedRows& touched) {
    if (touched.rows.grad().defined())
      training_->row_optimisers.at(table).update(training_->tables.at(table).values(), touched.ids,
                                                 touched.rows.grad(), lr, scale);
  });
  for (const std::string& name : training_->parameters.names())
    training_->parameters.at(name).mutable_grad().reset();
}

void Loop::validate() {
  const at::NoGradGuard no_graph;
  report_experts();
  const auto start = Clock::now();
  const DataOrder& order = *data_.validation;
  const uint64_t most = std::max<uint64_t>(1, run_.validate.tokens / order.length());
  const uint64_t windows = std::min<uint64_t>(most, order.windows()), size = group_.size();
  Tensor sums = at::zeros({2}, at::kDouble);  // nats, windows
  for (uint64_t first = 0; first < windows; first += size * run_.batch.sequences) {
    const uint64_t left = windows - first;
    const uint64_t mine = std::min<uint64_t>(run_.batch.sequences, (left + size - 1 - group_.rank()) / size);
    const Tensor tokens = sequences(order, first, mine);
    const Tensor inputs = tokens.narrow(1, 0, order.length()), targets = tokens.narrow(1, 1, order.length());
    const BatchRows rows = touch(inputs);
    if (mine == 0) continue;
    const Tensor loss = loss_or_nan(inputs.to(device()), targets.to(device()), rows, pass());
    sums[0] += loss.item<double>() * static_cast<double>(mine);
    sums[1] += static_cast<double>(mine);
  }
  group_.all_reduce_sum(sums);
  const double nats = sums[0].item<double>() / sums[1].item<double>();
  const ShardSet& shards = order.shards();
  const double bits = nats / std::log(2.0) * static_cast<double>(shards.tokens()) /
                      static_cast<double>(std::max<uint64_t>(1, shards.text_bytes()));
  const bool better = nats < state_.best_validation - run_.early_stop.min_delta;
  state_.validations_without_gain = better ? 0 : state_.validations_without_gain + 1;
  state_.best_validation = std::min(state_.best_validation, nats);
  report_.event(
      {{"step", state_.step},
       {"validation_loss", nats},
       {"perplexity", std::exp(nats)},
       {"bits_per_byte", bits},
       {"best", state_.best_validation}},
      fmt::format("step {}  validation loss {:.4f}  perplexity {:.2f}  {:.4f} bits per byte  ({:.1f} s)",
                  state_.step, nats, std::exp(nats), bits, since(start)));
  require(std::isfinite(nats), ErrorCode::corrupt,
          "step {}: the validation loss is not a finite number; the checkpoints before it stay", state_.step);
}

/// Process 0 does `work`; the others hand it the rows of tables that it asks for.
void Loop::at_first(const std::function<void()>& work) {
  if (shards_)
    shards_->serve(work);
  else
    work();
}

void Loop::write_samples() {
  const auto touch = [&](const Tensor& tokens) {
    return shards_ ? shards_->touch_alone(tokens) : this->touch(tokens);
  };
  at_first([&] {
    for (size_t i = 0; i < run_.samples.prompts.size(); ++i) {
      const std::string& prompt = run_.samples.prompts[i];
      const std::string text = sample_text(*training_, *tokenizer_.tokenizer, run_.samples, prompt,
                                           run_.seed + state_.step * 1000003 + i, touch);
      report_.event({{"step", state_.step}, {"prompt", prompt}, {"sample", text}}, "  > " + prompt + text);
    }
  });
}

void Loop::save() {
  report_experts();
  at_first([&] {
    state_.log_bytes = report_.sync_log();
    const fs::path folder =
        save_checkpoint(run_.out, *training_, table_rows(), tokenizer_, state_, run_.save.keep);
    report_.event({{"step", state_.step}, {"checkpoint", folder.filename().string()}}, "");
    write_curves(run_.out,
                 training_->config.name.empty() ? run_.out.filename().string() : training_->config.name);
  });
}

void Loop::finish(Ending ending) {
  report_.finish_line();
  const std::string where = (run_.out / checkpoint_name(state_.step)).string();
  switch (ending) {
    case Ending::finished:
      report_.say("mneme-train: done: " + where);
      break;
    case Ending::stopped_early:
      report_.say(fmt::format("mneme-train: stopped early after step {}: {} validations brought nothing: {}",
                              state_.step, state_.validations_without_gain, where));
      break;
    case Ending::interrupted:
      report_.say(fmt::format("mneme-train: interrupted after step {}, saved {}; --resume goes on",
                              state_.step, where));
  }
}

}  // namespace

Ending train(const RunConfig& run, const TrainOptions& options, ProcessGroup& group) {
  return Loop(run, options, group).go();
}

}  // namespace mneme::train
