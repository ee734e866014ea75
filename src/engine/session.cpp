#include "mneme/session.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/fail.h"
#include "engine/session_impl.h"

namespace mneme {
namespace {

// Logits of a whole chunk are kept to about this many bytes: a vocabulary of 262,144 has 1 MB a token.
constexpr uint64_t kLogitBytes = uint64_t{64} << 20;

const SessionOptions& checked(const SessionOptions& options) {
  require(options.chunk >= 1 && options.chunk <= 65536, ErrorCode::invalid_argument,
          "chunk must be between 1 and 65536 tokens, not {}", options.chunk);
  require(options.max_rollback <= (1u << 20), ErrorCode::invalid_argument,
          "max_rollback must be at most {}, not {}", 1u << 20, options.max_rollback);
  return options;
}

}  // namespace

std::shared_ptr<Executor> Executor::of(const std::shared_ptr<const Model>& model) {
  static std::mutex mutex;
  static std::map<const Model*, std::weak_ptr<Executor>> executors;
  const std::lock_guard lock(mutex);
  std::erase_if(executors, [](const auto& entry) { return entry.second.expired(); });
  auto& slot = executors[model.get()];
  auto executor = slot.lock();
  if (!executor) slot = executor = std::make_shared<Executor>(model);
  return executor;
}

bool Executor::run(std::span<const Slice> slices, std::span<const TokenId> ids,
                   std::span<const int64_t> logit_rows, float* logits, const CancelToken* cancel) {
  const std::lock_guard lock(mutex_);
  Step step{model_->impl(), workspace_, slices, ids, logit_rows, logits, {}, nullptr};
  if (cancel != nullptr) step.cancelled = [cancel] { return cancel->cancelled(); };
  return run_step(*model_->impl().pool, step);
}

SequenceState Executor::fresh(const SessionOptions& options) {
  auto layout = std::make_shared<const CacheLayout>(
      make_cache_layout(model_->config(), kv_format(options.kv), options.max_rollback));
  if (layout->sink_tokens == 0) return SequenceState(std::move(layout));
  const std::lock_guard lock(mutex_);
  const auto key = std::pair(options.kv, options.max_rollback);
  auto at = starts_.find(key);
  if (at == starts_.end()) at = starts_.emplace(key, after_sink_tokens(std::move(layout))).first;
  return at->second;
}

SequenceState Executor::after_sink_tokens(std::shared_ptr<const CacheLayout> layout) {
  const int64_t n = layout->sink_tokens;
  SequenceState state(std::move(layout));
  state.reserve(n);
  const Slice slice{&state, 0, n, 0, {}};
  const std::vector<TokenId> ids(static_cast<size_t>(n));  // none; the embeddings stand for them
  Step step{
      model_->impl(), workspace_, {&slice, 1}, ids, {}, nullptr, {}, model_->impl().sink_embeddings.data()};
  run_step(*model_->impl().pool, step);
  state.advance(n);
  return state;
}

SessionImpl::SessionImpl(std::shared_ptr<const Model> m, const SessionOptions& o)
    : model(std::move(m)), options(o), executor(Executor::of(model)), state(executor->fresh(checked(o))) {
  if (options.max_context == 0) options.max_context = model->config().context;
}

void SessionImpl::check_ids(std::span<const TokenId> ids) const {
  require(!ids.empty(), ErrorCode::invalid_argument, "append needs at least one token id");
  for (const TokenId id : ids)
    require(id >= 0 && static_cast<uint64_t>(id) < vocab(), ErrorCode::invalid_argument,
            "token id {} is outside the vocabulary of {} tokens", id, vocab());
}

void SessionImpl::check_room(uint64_t n) const {
  const uint64_t context = options.max_context, used = tokens.size();
  if (context == 0) return;
  require(n <= context && used <= context - n, ErrorCode::limit,
          "{} tokens do not fit after {}: the context holds {}; shorten the text or raise the context", n,
          used, context);
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : impl_(std::make_unique<SessionImpl>(std::move(model), options)) {}
Session::Session(std::unique_ptr<SessionImpl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const Model& Session::model() const noexcept {
  return *impl_->model;
}
const SessionOptions& Session::options() const noexcept {
  return impl_->options;
}
uint64_t Session::position() const noexcept {
  return impl_->tokens.size();
}
const std::vector<TokenId>& Session::tokens() const noexcept {
  return impl_->tokens;
}
uint64_t Session::state_bytes() const noexcept {
  return static_cast<uint64_t>(impl_->state.bytes());
}

std::span<const float> Session::logits() const noexcept {
  if (!impl_->has_logits) return {};
  return {impl_->logits.data() + impl_->last_logits, impl_->vocab()};
}

std::span<const float> Session::append(std::span<const TokenId> ids, const AppendOptions& options) {
  SessionImpl& s = *impl_;
  s.check_ids(ids);
  s.check_room(ids.size());
  const uint64_t vocab = s.vocab();
  const bool keep_all = options.all_logits && !options.on_logits;
  uint64_t chunk = s.options.chunk;
  if (options.all_logits) chunk = std::clamp<uint64_t>(kLogitBytes / (vocab * sizeof(float)), 1, chunk);
  // Undoing finished chunks is a rollback unless a layer has already let go of what it would need.
  const bool long_run = ids.size() > chunk;
  // (A copy shares the blocks, which the first chunk then has to copy before it writes: not for every token.)
  std::optional<SequenceState> before;
  if (s.state.layout().forgets() && long_run) before = s.state;
  const int64_t start = s.state.position();
  const size_t held = s.tokens.size();
  const auto undo = [&] {
    if (before)
      s.state = *before;
    else
      s.state.rollback(s.state.position() - start);
    s.tokens.resize(held);
  };

  s.has_logits = false;
  if (ids.size() > s.tokens.capacity()) s.tokens.reserve(held + ids.size());  // a long text: no spare room
  if (keep_all) s.logits.resize(ids.size() * vocab);
  std::vector<int64_t> rows;
  for (uint64_t done = 0; done < ids.size();) {
    const uint64_t n = std::min<uint64_t>(chunk, ids.size() - done);
    const bool last = done + n == ids.size();
    rows.clear();
    for (uint64_t i = options.all_logits ? 0 : n - 1; i < n; ++i)
      if (options.all_logits || last) rows.push_back(static_cast<int64_t>(i));
    if (!keep_all) s.logits.resize(std::max<size_t>(rows.size() * vocab, s.logits.size()));
    float* logits = s.logits.data() + (keep_all ? done * vocab : 0);
    const Slice slice{&s.state,           0,        static_cast<int64_t>(n),
                      s.state.position(), s.tokens, s.block_hook,
                      s.observer,         s.routes};
    bool finished = false;
    try {
      s.state.reserve(static_cast<int64_t>(n));
      finished = s.executor->run({&slice, 1}, ids.subspan(done, n), rows, logits, options.cancel);
    } catch (...) {
      undo();
      throw;
    }
    if (!finished) {
      undo();
      fail(ErrorCode::cancelled, "stopped after {} of {} tokens", done, ids.size());
    }
    s.state.advance(static_cast<int64_t>(n));
    s.tokens.insert(s.tokens.end(), ids.begin() + static_cast<int64_t>(done),
                    ids.begin() + static_cast<int64_t>(done + n));
    if (last) s.last_logits = static_cast<size_t>(logits - s.logits.data()) + (rows.size() - 1) * vocab;
    if (options.on_logits) options.on_logits(done, n, logits);
    done += n;
    if (options.progress) options.progress(done, ids.size());
  }
  s.has_logits = true;
  if (options.on_logits) return {};
  return keep_all ? std::span<const float>(s.logits.data(), ids.size() * vocab) : this->logits();
}

void Session::append_batch(std::span<Session* const> sessions, std::span<const TokenId> ids,
                           const CancelToken* cancel) {
  require(!sessions.empty() && sessions.size() == ids.size(), ErrorCode::invalid_argument,
          "append_batch needs one token for each session: {} sessions, {} ids", sessions.size(), ids.size());
  const SessionImpl& first = *sessions[0]->impl_;
  std::set<const Session*> seen;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const SessionImpl& s = *sessions[i]->impl_;
    require(s.model == first.model, ErrorCode::invalid_argument, "append_batch needs sessions of one model");
    require(seen.insert(sessions[i]).second, ErrorCode::invalid_argument,
            "append_batch lists a session twice");
    s.check_ids(ids.subspan(i, 1));
    s.check_room(1);
  }
  const uint64_t vocab = first.vocab();
  std::vector<float> logits(sessions.size() * vocab);
  std::vector<Slice> slices;
  std::vector<int64_t> rows;
  for (size_t i = 0; i < sessions.size(); ++i) {
    SequenceState& state = sessions[i]->impl_->state;
    state.reserve(1);
    slices.push_back({&state, static_cast<int64_t>(i), 1, state.position(), sessions[i]->impl_->tokens,
                      sessions[i]->impl_->block_hook, sessions[i]->impl_->observer,
                      sessions[i]->impl_->routes});
    rows.push_back(static_cast<int64_t>(i));
  }
  if (!first.executor->run(slices, ids, rows, logits.data(), cancel))
    fail(ErrorCode::cancelled, "stopped before the batch was done");
  for (size_t i = 0; i < sessions.size(); ++i) {
    SessionImpl& s = *sessions[i]->impl_;
    s.state.advance(1);
    s.tokens.push_back(ids[i]);
    s.logits.assign(logits.begin() + static_cast<int64_t>(i * vocab),
                    logits.begin() + static_cast<int64_t>((i + 1) * vocab));
    s.last_logits = 0;
    s.has_logits = true;
  }
}

Session Session::fork() const {
  auto impl = std::make_unique<SessionImpl>(impl_->model, impl_->options);
  impl->state = impl_->state;
  impl->tokens = impl_->tokens;
  const auto row = logits();
  impl->logits.assign(row.begin(), row.end());
  impl->has_logits = impl_->has_logits;
  return Session(std::move(impl));
}

void Session::rollback(uint64_t n) {
  if (n == 0) return;
  impl_->state.rollback(static_cast<int64_t>(std::min<uint64_t>(n, uint64_t{1} << 62)));
  impl_->tokens.resize(impl_->tokens.size() - static_cast<size_t>(n));
  impl_->has_logits = false;
}

}  // namespace mneme
