// Statements.
#include "text/jinja/parser.h"

#include <algorithm>
#include <array>

#include "text/jinja/expression_parser.h"
#include "text/jinja/token_stream.h"

namespace mneme::jinja {

namespace {

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(source), expressions_(tokens_, depth_) {}

  Block run() { return block({}); }

 private:
  using Ends = std::vector<std::string_view>;
  using StatementPtr = std::unique_ptr<Statement>;

  static StatementPtr make(StatementKind kind, int line) {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  /// Statements up to a `{% NAME` with NAME in `ends`, which is left as the current token.
  Block block(const Ends& ends) {
    const DepthGuard guard(depth_, kMaxParseDepth, tokens_);
    Block out;
    for (;;) {
      const Token& token = tokens_.peek();
      if (token.kind == TokenKind::end) {
        if (!ends.empty())
          tokens_.bad(fmt::format("the template ends before {{% {} %}}", fmt::join(ends, " or ")));
        return out;
      }
      tokens_.next();
      if (token.kind == TokenKind::data) {
        out.push_back(make(StatementKind::text, token.line));
        out.back()->text = token.text;
      } else if (token.kind == TokenKind::print_begin) {
        out.push_back(make(StatementKind::output, token.line));
        out.back()->exprs.push_back(expressions_.tuple());
        tokens_.expect(TokenKind::print_end, "'}}'");
      } else {
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return tokens_.at_name(end); }))
          return out;
        out.push_back(statement());
        tokens_.expect(TokenKind::block_end, "'%}'");
      }
    }
  }

  /// The body of a block tag: from its '%}' to the tag that ends it, whose name is consumed and returned.
  std::string body(Block& out, const Ends& ends) {
    tokens_.skip_op(":");
    tokens_.expect(TokenKind::block_end, "'%}'");
    out = block(ends);
    return tokens_.next().text;
  }

  /// A body whose output goes elsewhere, so that {% break %} cannot leave a loop around it.
  void separate_body(Block& out, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    body(out, {end});
    loops_ = loops;
  }

  StatementPtr statement() {
    const int line = tokens_.peek().line;
    const std::string name = tokens_.expect_name();
    if (name == "set") return set(line);
    if (name == "if") return if_chain(line);
    if (name == "for") return for_loop(line);
    if (name == "macro") return macro(line);
    if (name == "call") return call_block(line);
    if (name == "filter") return filter_block(line);
    if (name == "with") return with(line);
    if (name == "generation") return generation(line);
    if (name == "print") return print(line);
    if (name == "break" || name == "continue") return jump(line, name);
    static constexpr std::array<std::string_view, 9> kOthers = {
        "include", "import", "from", "extends", "block", "do", "trans", "debug", "autoescape"};
    if (std::find(kOthers.begin(), kOthers.end(), name) != kOthers.end())
      tokens_.unsupported(line, fmt::format("{{% {} %}}", name));
    fail(ErrorCode::corrupt, "chat template line {}: unexpected tag {{% {} %}}", line, name);
  }

  Target target_part(bool with_attribute) {
    Target target;
    if (tokens_.skip_op("(")) {
      target = this->target(with_attribute);
      tokens_.expect_op(")");
      return target;
    }
    const int line = tokens_.peek().line;
    target.name = tokens_.expect_name();
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"})
      if (target.name == constant)
        fail(ErrorCode::corrupt, "chat template line {}: cannot assign to {}", line, constant);
    if (with_attribute && tokens_.skip_op(".")) target.attribute = tokens_.expect_name();
    return target;
  }

  Target target(bool with_attribute) {
    const DepthGuard guard(depth_, kMaxParseDepth, tokens_);
    Target first = target_part(with_attribute);
    if (!tokens_.at_op(",")) return first;
    Target out;
    out.unpack = true;
    out.parts.push_back(std::move(first));
    while (tokens_.skip_op(",")) {
      if (tokens_.peek().kind != TokenKind::name && !tokens_.at_op("(")) break;
      if (tokens_.at_name("in")) break;
      out.parts.push_back(target_part(with_attribute));
    }
    return out;
  }

  StatementPtr set(int line) {
    auto out = make(StatementKind::set, line);
    out->target = target(true);
    if (tokens_.skip_op("=")) {
      out->exprs.push_back(expressions_.tuple());
      return out;
    }
    out->kind = StatementKind::set_block;
    out->exprs.push_back(tokens_.skip_op("|") ? expressions_.filter_chain() : nullptr);
    separate_body(out->blocks.emplace_back(), "endset");
    return out;
  }

  StatementPtr if_chain(int line) {
    auto out = make(StatementKind::if_chain, line);
    for (;;) {
      out->exprs.push_back(expressions_.tuple(false));
      const std::string end = body(out->blocks.emplace_back(), {"elif", "else", "endif"});
      if (end == "endif") return out;
      if (end == "elif") continue;
      body(out->blocks.emplace_back(), {"endif"});
      return out;
    }
  }

  StatementPtr for_loop(int line) {
    auto out = make(StatementKind::for_loop, line);
    out->target = target(false);
    if (!tokens_.skip_name("in")) tokens_.bad(fmt::format("expected 'in' but found {}", tokens_.describe()));
    out->exprs.push_back(expressions_.tuple(false));
    out->exprs.push_back(tokens_.skip_name("if") ? expressions_.expression() : nullptr);
    if (tokens_.at_name("recursive")) tokens_.unsupported(line, "a recursive loop");
    out->blocks.resize(2);
    ++loops_;
    const std::string end = body(out->blocks[0], {"endfor", "else"});
    --loops_;
    if (end == "else") body(out->blocks[1], {"endfor"});
    return out;
  }

  StatementPtr jump(int line, const std::string& name) {
    if (loops_ == 0) fail(ErrorCode::corrupt, "chat template line {}: {{% {} %}} outside a loop", line, name);
    return make(name == "break" ? StatementKind::loop_break : StatementKind::loop_continue, line);
  }

  void signature(Macro& macro) {
    tokens_.expect_op("(");
    while (!tokens_.at_op(")")) {
      macro.parameters.push_back(tokens_.expect_name());
      if (tokens_.skip_op("="))
        macro.defaults.push_back(expressions_.expression());
      else if (!macro.defaults.empty())
        tokens_.bad("a parameter without a default follows one with a default");
      if (!tokens_.skip_op(",")) break;
    }
    tokens_.expect_op(")");
  }

  StatementPtr macro(int line) {
    auto out = make(StatementKind::macro, line);
    out->macro = std::make_unique<Macro>();
    out->macro->name = tokens_.expect_name();
    signature(*out->macro);
    separate_body(out->macro->body, "endmacro");
    return out;
  }

  StatementPtr call_block(int line) {
    auto out = make(StatementKind::call_block, line);
    out->macro = std::make_unique<Macro>();
    out->macro->name = "caller";
    if (tokens_.at_op("(")) signature(*out->macro);
    out->exprs.push_back(expressions_.expression());
    if (out->exprs[0]->kind != ExprKind::call) tokens_.bad("{% call %} needs the call of a macro");
    separate_body(out->macro->body, "endcall");
    return out;
  }

  StatementPtr filter_block(int line) {
    auto out = make(StatementKind::filter_block, line);
    out->exprs.push_back(expressions_.filter_chain());
    separate_body(out->blocks.emplace_back(), "endfilter");
    return out;
  }

  StatementPtr with(int line) {
    auto out = make(StatementKind::with, line);
    while (tokens_.peek().kind != TokenKind::block_end) {
      out->targets.push_back(target_part(false));
      tokens_.expect_op("=");
      out->exprs.push_back(expressions_.expression());
      if (!tokens_.skip_op(",")) break;
    }
    body(out->blocks.emplace_back(), {"endwith"});
    return out;
  }

  /// transformers renders the body as a call block, so it has a scope of its own.
  StatementPtr generation(int line) {
    auto out = make(StatementKind::generation, line);
    separate_body(out->blocks.emplace_back(), "endgeneration");
    return out;
  }

  StatementPtr print(int line) {
    auto out = make(StatementKind::output, line);
    out->exprs.push_back(expressions_.expression());
    if (tokens_.at_op(",")) tokens_.unsupported(line, "{% print %} of several values");
    return out;
  }

  TokenStream tokens_;
  int depth_ = 0;
  int loops_ = 0;
  ExpressionParser expressions_;
};

}  // namespace

Block parse_template(std::string_view source) {
  return Parser(source).run();
}

}  // namespace mneme::jinja
