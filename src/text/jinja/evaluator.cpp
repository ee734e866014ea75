#include "text/jinja/evaluator.h"

#include <algorithm>

namespace mneme::jinja {

namespace {

/// Scopes, macros and loops may hold each other only through weak references and the evaluator's own list of
/// namespaces, so everything is freed when rendering ends.
class DepthCount {
 public:
  DepthCount(int& depth, int limit) : depth_(depth) {
    if (++depth_ > limit) {
      --depth_;
      fail(ErrorCode::limit, "nested more than {} levels deep", limit);
    }
  }
  ~DepthCount() { --depth_; }
  DepthCount(const DepthCount&) = delete;
  DepthCount& operator=(const DepthCount&) = delete;

 private:
  int& depth_;
};

/// Sends printed text elsewhere while it lives.
class Redirect {
 public:
  Redirect(std::string*& out, std::string& to) : out_(out), before_(out) { out_ = &to; }
  ~Redirect() { out_ = before_; }
  Redirect(const Redirect&) = delete;
  Redirect& operator=(const Redirect&) = delete;

 private:
  std::string*& out_;
  std::string* before_;
};

[[noreturn]] void locate(const Error& error, int line) {
  if (dynamic_cast<const LocatedError*>(&error)) throw;
  throw LocatedError(error.code(), fmt::format("chat template line {}: {}", line, error.what()));
}

}  // namespace

Evaluator::~Evaluator() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

void Evaluator::fail_steps() const {
  fail(ErrorCode::limit, "the template needs more than {} steps", limits_.steps);
}

Evaluator::ScopePtr Evaluator::inside(const ScopePtr& parent) {
  auto scope = std::make_shared<Scope>();
  scope->parent = parent.get();
  return scope;
}

std::string Evaluator::render(const Block& block) {
  std::string text;
  const Redirect redirect(out_, text);
  const ScopePtr scope = inside(globals_);
  run(block, scope);
  return text;
}

void Evaluator::print(std::string_view text) {
  charge_bytes(text.size());
  require(text.size() <= limits_.output_bytes - std::min<uint64_t>(out_->size(), limits_.output_bytes),
          ErrorCode::limit, "the text is longer than {} bytes", limits_.output_bytes);
  *out_ += text;
}

std::string Evaluator::capture(const Block& block, const ScopePtr& scope) {
  std::string text;
  const Redirect redirect(out_, text);
  run(block, inside(scope));
  return text;
}

Evaluator::Flow Evaluator::run(const Block& block, const ScopePtr& scope) {
  for (const auto& statement : block) {
    try {
      const DepthCount count(depth_, limits_.depth);
      charge(1);
      const Flow flow = run(*statement, scope);
      if (flow != Flow::next) return flow;
    } catch (const Error& error) {
      locate(error, statement->line);
    }
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::run(const Statement& statement, const ScopePtr& scope) {
  switch (statement.kind) {
    case StatementKind::text:
      print(statement.text);
      break;
    case StatementKind::output:
      print(text_of(evaluate(*statement.exprs[0], scope)));
      break;
    case StatementKind::set:
      assign(statement.target, evaluate(*statement.exprs[0], scope), scope);
      break;
    case StatementKind::set_block: {
      Value text(capture(statement.blocks[0], scope));
      if (statement.exprs[0]) text = evaluate_filter(*statement.exprs[0], scope, &text);
      assign(statement.target, text, scope);
      break;
    }
    case StatementKind::if_chain:
      return run_if(statement, scope);
    case StatementKind::for_loop:
      return run_for(statement, scope);
    case StatementKind::macro:
      scope->variables[statement.macro->name] = make_macro(*statement.macro, scope);
      break;
    case StatementKind::call_block:
      run_call_block(statement, scope);
      break;
    case StatementKind::filter_block: {
      const Value text(capture(statement.blocks[0], scope));
      print(text_of(evaluate_filter(*statement.exprs[0], scope, &text)));
      break;
    }
    case StatementKind::with:
      return run_with(statement, scope);
    case StatementKind::generation:
      print(capture(statement.blocks[0], scope));
      break;
    case StatementKind::loop_break:
      return Flow::stop_loop;
    case StatementKind::loop_continue:
      return Flow::next_iteration;
  }
  return Flow::next;
}

Evaluator::Flow Evaluator::run_if(const Statement& statement, const ScopePtr& scope) {
  for (size_t i = 0; i < statement.exprs.size(); ++i)
    if (evaluate(*statement.exprs[i], scope).truth()) return run(statement.blocks[i], scope);
  if (statement.blocks.size() > statement.exprs.size()) return run(statement.blocks.back(), scope);
  return Flow::next;
}

Evaluator::Flow Evaluator::run_for(const Statement& statement, const ScopePtr& scope) {
  std::vector<Value> items = iterate(*this, evaluate(*statement.exprs[0], scope));
  if (statement.exprs[1]) {
    std::vector<Value> kept;
    for (const Value& item : items) {
      const ScopePtr test = inside(scope);
      assign(statement.target, item, test);
      if (evaluate(*statement.exprs[1], test).truth()) kept.push_back(item);
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    run(statement.blocks[1], inside(scope));
    return Flow::next;
  }
  const auto loop = std::make_shared<Loop>();
  const Value whole = list_of(items);  // counts nesting and weight, and refuses too much of them
  loop->nesting = whole.nesting() + 1;
  loop->weight = whole.weight() + 1;
  loop->items = std::move(items);
  for (; loop->index < loop->items.size(); ++loop->index) {
    charge(1);
    const ScopePtr body = inside(scope);
    body->variables["loop"] = Value(loop);
    assign(statement.target, loop->items[loop->index], body);
    if (run(statement.blocks[0], body) == Flow::stop_loop) break;
  }
  return Flow::next;
}

void Evaluator::run_call_block(const Statement& statement, const ScopePtr& scope) {
  const Value caller = make_macro(*statement.macro, scope);
  print(text_of(evaluate_call(*statement.exprs[0], scope, &caller)));
}

Evaluator::Flow Evaluator::run_with(const Statement& statement, const ScopePtr& scope) {
  const ScopePtr inner = inside(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(statement.targets[i], evaluate(*statement.exprs[i], scope), inner);
  return run(statement.blocks[0], inner);
}

void Evaluator::assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (target.unpack) {
    const std::vector<Value> items = iterate(*this, value);
    require(items.size() == target.parts.size(), ErrorCode::invalid_argument,
            "{} values cannot be assigned to {} names", items.size(), target.parts.size());
    for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i], scope);
    return;
  }
  if (target.attribute.empty()) {
    scope->variables[target.name] = value;
    return;
  }
  for (Scope* at = scope.get(); at; at = at->parent) {
    const auto found = at->variables.find(target.name);
    if (found == at->variables.end()) continue;
    const auto* space = found->second.get<std::shared_ptr<Namespace>>();
    require(space != nullptr, ErrorCode::invalid_argument,
            "'{}' is a {}; attributes can be set only on a namespace()", target.name,
            type_name(found->second));
    if (Value* old = (*space)->find(target.attribute))
      *old = value;
    else
      (*space)->attributes.emplace_back(target.attribute, value);
    charge(1 + (*space)->attributes.size() / 8);
    return;
  }
  fail(ErrorCode::invalid_argument, "'{}' is undefined", target.name);
}

Value Evaluator::make_macro(const Macro& macro, const ScopePtr& scope) {
  auto callable = std::make_shared<Callable>();
  callable->kind = Callable::Kind::macro;
  callable->name = macro.name;
  callable->macro = &macro;
  callable->scope = scope;
  return Value(std::shared_ptr<const Callable>(std::move(callable)));
}

Value Evaluator::evaluate(const Expr& expr, const ScopePtr& scope) {
  try {
    const DepthCount count(depth_, limits_.depth);
    charge(1);
    return evaluate_kind(expr, scope);
  } catch (const Error& error) {
    locate(error, expr.line);
  }
}

Value Evaluator::evaluate_kind(const Expr& expr, const ScopePtr& scope) {
  const auto item = [&](size_t i) { return evaluate(*expr.items[i], scope); };
  switch (expr.kind) {
    case ExprKind::constant:
      return expr.value;
    case ExprKind::name:
      return evaluate_name(expr, scope);
    case ExprKind::list:
      return list_of(evaluate_all(expr.items, scope));
    case ExprKind::tuple:
      return list_of(evaluate_all(expr.items, scope), Shape::tuple);
    case ExprKind::dict: {
      Pairs entries;
      for (size_t i = 0; i < expr.items.size(); i += 2) {
        Value key = item(i);
        entries.emplace_back(std::move(key), item(i + 1));
      }
      return Value::dict(std::move(entries));
    }
    case ExprKind::attribute:
      return get_attribute(item(0), expr.text);
    case ExprKind::subscript: {
      const Value object = item(0);
      return get_item(object, item(1));
    }
    case ExprKind::slice:
      return evaluate_slice(expr, scope);
    case ExprKind::call:
      return evaluate_call(expr, scope, nullptr);
    case ExprKind::spread:
      break;  // evaluated with the arguments that it stands among
    case ExprKind::filter:
      return evaluate_filter(expr, scope, nullptr);
    case ExprKind::test: {
      const Value input = item(0);
      return apply_test(*this, expr.text, input, evaluate_arguments(expr, scope));
    }
    case ExprKind::negate:
      return binary_operator(*this, "neg", Value(int64_t{0}), item(0));
    case ExprKind::plus:
      return binary_operator(*this, "pos", Value(int64_t{0}), item(0));
    case ExprKind::logical_not:
      return !item(0).truth();
    case ExprKind::logical_and: {
      Value left = item(0);
      return left.truth() ? item(1) : left;
    }
    case ExprKind::logical_or: {
      Value left = item(0);
      return left.truth() ? left : item(1);
    }
    case ExprKind::binary: {
      const Value left = item(0);
      return binary_operator(*this, expr.text, left, item(1));
    }
    case ExprKind::concat: {
      std::string text;
      for (const ExprPtr& part : expr.items) text += text_of(evaluate(*part, scope));
      charge_bytes(text.size());
      return Value(std::move(text));
    }
    case ExprKind::compare:
      return evaluate_compare(expr, scope);
    case ExprKind::conditional:
      if (item(1).truth()) return item(0);
      if (expr.items[2]) return item(2);
      return Value::undefined("the inline 'if' without 'else'");
  }
  fail(ErrorCode::internal, "an expression in an unexpected place");
}

Value Evaluator::evaluate_name(const Expr& expr, const ScopePtr& scope) {
  for (const Scope* at = scope.get(); at; at = at->parent) {
    const auto found = at->variables.find(expr.text);
    if (found != at->variables.end()) return found->second;
  }
  return Value::undefined("'" + expr.text + "'");
}

Value Evaluator::evaluate_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = evaluate(*expr.items[0], scope);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = evaluate(*expr.items[i + 1], scope);
    if (!compare_operator(*this, expr.ops[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate_slice(const Expr& expr, const ScopePtr& scope) {
  const std::vector<Value> parts = evaluate_all(expr.items, scope);
  const auto part = [&](size_t i) { return expr.items[i] ? &parts[i] : nullptr; };
  return get_slice(*this, parts[0], part(1), part(2), part(3));
}

std::vector<Value> Evaluator::evaluate_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope) {
  std::vector<Value> out;
  out.reserve(exprs.size());
  for (size_t i = 0; i < exprs.size(); ++i) out.push_back(exprs[i] ? evaluate(*exprs[i], scope) : Value());
  return out;
}

Arguments Evaluator::evaluate_arguments(const Expr& expr, const ScopePtr& scope) {
  Arguments out;
  for (size_t i = 1; i < expr.items.size(); ++i) {
    if (expr.items[i]->kind != ExprKind::spread) {
      out.positional.push_back(evaluate(*expr.items[i], scope));
      continue;
    }
    for (Value& value : iterate(*this, evaluate(*expr.items[i]->items[0], scope)))
      out.positional.push_back(std::move(value));
  }
  for (const auto& [name, value] : expr.named) out.named.emplace_back(name, evaluate(*value, scope));
  return out;
}

Value Evaluator::evaluate_filter(const Expr& expr, const ScopePtr& scope, const Value* head) {
  // The innermost filter of a {% filter %} chain has no input of its own.
  const Value input = !expr.items[0]                            ? *head
                      : expr.items[0]->kind == ExprKind::filter ? evaluate_filter(*expr.items[0], scope, head)
                                                                : evaluate(*expr.items[0], scope);
  try {
    const Arguments arguments = evaluate_arguments(expr, scope);
    charge(1);
    return apply_filter(*this, expr.text, input, arguments);
  } catch (const Error& error) {
    locate(error, expr.line);
  }
}

Value Evaluator::evaluate_call(const Expr& expr, const ScopePtr& scope, const Value* caller) {
  const Value function = evaluate(*expr.items[0], scope);
  Arguments arguments = evaluate_arguments(expr, scope);
  if (caller) arguments.named.emplace_back("caller", *caller);
  return call(function, arguments);
}

Value Evaluator::call(const Value& function, const Arguments& arguments) {
  if (const auto* what = function.get<Undefined>())
    fail(ErrorCode::invalid_argument, "{} is undefined", what->what ? *what->what : "a value");
  const auto* callable = function.get<std::shared_ptr<const Callable>>();
  require(callable != nullptr, ErrorCode::invalid_argument, "a {} is called like a function",
          type_name(function));
  switch ((*callable)->kind) {
    case Callable::Kind::global:
      return call_global(*this, (*callable)->name, arguments);
    case Callable::Kind::method:
      return call_method(*this, (*callable)->self, (*callable)->name, arguments);
    case Callable::Kind::macro:
      return call_macro(**callable, arguments);
  }
  fail(ErrorCode::internal, "a function of an unknown kind");
}

Value Evaluator::call_macro(const Callable& callable, const Arguments& arguments) {
  const Macro& macro = *callable.macro;
  const ScopePtr defined_in = callable.scope.lock();
  require(defined_in != nullptr, ErrorCode::unsupported,
          "the macro '{}' is called outside the block that defines it", macro.name);
  require(arguments.positional.size() <= macro.parameters.size(), ErrorCode::invalid_argument,
          "macro '{}' takes at most {} arguments, {} given", macro.name, macro.parameters.size(),
          arguments.positional.size());
  const ScopePtr scope = inside(defined_in);
  const size_t given = arguments.positional.size();
  for (const auto& [name, value] : arguments.named) {
    const auto parameter = std::find(macro.parameters.begin(), macro.parameters.end(), name);
    const auto index = static_cast<size_t>(parameter - macro.parameters.begin());
    require(parameter != macro.parameters.end() || name == "caller", ErrorCode::invalid_argument,
            "macro '{}' has no parameter '{}'", macro.name, name);
    require(index >= given || name == "caller", ErrorCode::invalid_argument, "macro '{}' got '{}' twice",
            macro.name, name);
    scope->variables[name] = value;
  }
  const size_t without_default = macro.parameters.size() - macro.defaults.size();
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const std::string& name = macro.parameters[i];
    if (i < given)
      scope->variables[name] = arguments.positional[i];
    else if (scope->variables.contains(name))
      continue;
    else if (i >= without_default)
      scope->variables[name] = evaluate(*macro.defaults[i - without_default], scope);
    else
      scope->variables[name] = Value::undefined("parameter '" + name + "'");
  }
  std::string text;
  const Redirect redirect(out_, text);
  run(macro.body, scope);
  return Value(std::move(text));
}

Value Evaluator::make_namespace(const Arguments& arguments) {
  require(arguments.positional.size() <= 1, ErrorCode::invalid_argument,
          "namespace() takes at most one dictionary");
  auto space = std::make_shared<Namespace>();
  const auto put = [&](const std::string& name, const Value& value) {
    if (Value* old = space->find(name))
      *old = value;
    else
      space->attributes.emplace_back(name, value);
  };
  if (!arguments.positional.empty()) {
    const Dict* dict = arguments.positional[0].dict();
    require(dict != nullptr, ErrorCode::invalid_argument, "namespace() takes a dictionary, not a {}",
            type_name(arguments.positional[0]));
    charge(1 + dict->entries.size());
    for (const auto& [key, value] : dict->entries)
      put(require_string(key, "the name of an attribute"), value);
  }
  for (const auto& [name, value] : arguments.named) put(name, value);
  charge(32);
  namespaces_.push_back(space);
  return Value(std::move(space));
}

}  // namespace mneme::jinja
