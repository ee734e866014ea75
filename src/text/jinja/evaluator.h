// Walks the syntax tree and writes the text. One Evaluator renders once.
//
// Work is bounded: every step, and every byte that a value is built or printed with, is charged against
// Limits, so that a hostile template ends in Error(limit) after bounded time, memory and stack.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/builtins.h"

namespace mneme::jinja {

struct Limits {
  uint64_t steps = 50'000'000;
  uint64_t output_bytes = uint64_t{1} << 28;
  int depth = 1200;  // of nested evaluation, macro calls included
};

/// Variables of one block; looks further up in `parent`.
struct Scope {
  Scope* parent = nullptr;
  std::unordered_map<std::string, Value> variables;
};

/// An error whose message already names the line.
class LocatedError : public Error {
  using Error::Error;
};

class Evaluator {
 public:
  /// `strftime`: what strftime_now(format) returns.
  Evaluator(const Limits& limits, std::function<std::string(const std::string&)> strftime)
      : limits_(limits), strftime_(std::move(strftime)) {}
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  void define(const std::string& name, Value value) { globals_->variables[name] = std::move(value); }
  std::string render(const Block& block);

  /// Counts work; throws Error(limit) when there is too much. Costs are about one per 16 bytes touched.
  void charge(uint64_t steps) {
    if (steps > limits_.steps - used_) fail_steps();
    used_ += steps;
  }
  void charge_bytes(uint64_t bytes) { charge(1 + bytes / 16); }
  /// str(value), charged.
  std::string text_of(const Value& value) {
    charge_bytes(value.weight());
    return to_text(value);
  }
  Value call(const Value& function, const Arguments& arguments);
  Value make_namespace(const Arguments& arguments);
  std::string strftime(const std::string& format) const { return strftime_(format); }
  /// A list, charged by its length.
  Value list_of(std::vector<Value> items, Shape shape = Shape::list) {
    charge(1 + items.size());
    return Value::sequence(std::move(items), shape);
  }

 private:
  enum class Flow { next, stop_loop, next_iteration };
  using ScopePtr = std::shared_ptr<Scope>;

  Flow run(const Block& block, const ScopePtr& scope);
  Flow run(const Statement& statement, const ScopePtr& scope);
  Flow run_if(const Statement& statement, const ScopePtr& scope);
  Flow run_for(const Statement& statement, const ScopePtr& scope);
  void run_call_block(const Statement& statement, const ScopePtr& scope);
  Flow run_with(const Statement& statement, const ScopePtr& scope);
  /// Runs a block in a new scope and returns what it printed.
  std::string capture(const Block& block, const ScopePtr& scope);
  void assign(const Target& target, const Value& value, const ScopePtr& scope);
  void print(std::string_view text);

  Value evaluate(const Expr& expr, const ScopePtr& scope);
  Value evaluate_kind(const Expr& expr, const ScopePtr& scope);
  Value evaluate_name(const Expr& expr, const ScopePtr& scope);
  Value evaluate_compare(const Expr& expr, const ScopePtr& scope);
  Value evaluate_slice(const Expr& expr, const ScopePtr& scope);
  Value evaluate_call(const Expr& expr, const ScopePtr& scope, const Value* caller);
  Value evaluate_filter(const Expr& expr, const ScopePtr& scope, const Value* head);
  std::vector<Value> evaluate_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope);
  Arguments evaluate_arguments(const Expr& expr, const ScopePtr& scope);
  Value call_macro(const Callable& macro, const Arguments& arguments);
  Value make_macro(const Macro& macro, const ScopePtr& scope);

  [[noreturn]] void fail_steps() const;
  static ScopePtr inside(const ScopePtr& parent);

  Limits limits_;
  std::function<std::string(const std::string&)> strftime_;
  uint64_t used_ = 0;
  int depth_ = 0;
  ScopePtr globals_ = std::make_shared<Scope>();
  std::string* out_ = nullptr;
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // emptied at the end: they may refer to each other
};

}  // namespace mneme::jinja
