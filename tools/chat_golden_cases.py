"""What make_chat_golden.py renders: template snippets, conversations, and templates written for these tests."""

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Hi <there> & 'you'\n"},
        {"role": "assistant", "content": "Hello 世界 🌍", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [True, None, 1.5]}}}]},
        {"role": "user", "content": ""},
    ],
    "tools": [{"type": "function", "function": {"name": "get_weather", "description": "Weather",
               "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}],
    "extra": {
        "n": 7, "neg": -7, "f": 2.5, "big": 12345678901, "yes": True, "no": False, "nil": None, "text": "Hello, World",
        "uni": "Đường ß ﬁ Σίσυφος ǆ", "spaces": "  \t padded\u00a0\u2003\n ", "lines": "one\n\ntwo\r\nthree\n", "empty": "", "words": ["b", "A", "c", "a"],
        "nums": [3, 1, 2, 3], "mixed": [1, "a", None, True, 2.5, [1, 2], {"k": "v"}], "d": {"z": 1, "a": 2, "M": 3, "items": "own"},
        "nested": {"a": {"b": [10, {"c": "deep"}]}}, "users": [{"name": "Zoe", "age": 30, "on": True}, {"name": "adam", "age": 25, "on": False}, {"name": "Bob", "age": 30}],
        "ctrl": "a\u0000b\u001f\u007f\u0080\u2028\"\\/", "html": "<a href='x'>&</a>", "quotes": "it's \"so\"",
    },
}

SNIPPETS = []


def add(text):
    """One snippet a line; \\n in a snippet is written as ⏎."""
    SNIPPETS.extend(line.replace("⏎", "\n") for line in text.strip("\n").split("\n") if line.strip())


# Values and how they print
add("""
{{ 1 }} {{ -1 }} {{ 1.0 }} {{ 2.50 }} {{ 1e3 }} {{ 1e16 }} {{ 1.5e-7 }} {{ 1_000 }} {{ 123456789.125 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ missing }}|{{ nil }}|{{ empty }}|
{{ [1, 'a', none, true, 2.0] }} {{ (1,) }} {{ (1, 2) }} {{ () }} {{ [] }} {{ {} }} {{ {'a': 1, 2: 'b', none: []} }}
{{ mixed }} {{ d }} {{ nested }} {{ [missing] }} {{ [empty, 'x'] }} {{ [quotes, "it's", 'say "hi"'] }}
{{ [uni, ctrl, lines] }}
{{ "double" }}{{ 'single' }}{{ "a" 'b' "c" }}{{ 'it\\'s' }}{{ "tab\\tnew\\nline" }}{{ "\\x41\\u00e9\\U0001F600\\101\\q\\\\" }}
{{ 'a⏎b' }}{{ "\\⏎x" }}
{{ [1, 2, 3][0] }}{{ [1, 2, 3][-1] }}{{ [1][5] }}|{{ [1][5] is defined }}{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[9] }}|{{ (4, 5)[1] }}
{{ nested.a.b[1].c }} {{ nested['a']['b'][0] }} {{ nested.a.b.0 }} {{ nested.a.b.1.c }} {{ nested.x }}|{{ nested.x is defined }}
{{ nested.x.y }}
{{ missing.y }}
{{ missing['y'] }}
{{ missing() }}
{{ missing + 1 }}
{{ missing ~ 'x' }}{{ missing == missing }}{{ missing == none }}{{ missing|length }}{{ not missing }}{{ missing and 1 }}{{ missing or 'or' }}
{{ nil.x }}|{{ nil['x'] }}|{{ 5['x'] }}|{{ 5 .x }}|{{ text.nope }}
{{ nil + 1 }}
{{ 'a' + 1 }}
{{ [1] + [2, 3] }} {{ (1,) + (2,) }} {{ 'ab' + 'cd' }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [0] * 3 }} {{ 'ab' * -1 }}|{{ 2 * [1, 2] }}
{{ [1] + (2,) }}
{{ d['items'] }} {{ d.get('items') }} {{ d.get('nope') }} {{ d.get('nope', 5) }} {{ d.z }} {{ d['M'] }}
""")
# Arithmetic, comparison, logic
add("""
{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 // -2 }}
{{ 7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ -7.5 // 2 }} {{ 1.5 + 1 }} {{ true + 1 }} {{ true * 3 }} {{ 2 ** 0.5 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ (1 + 2) * 3 }} {{ 1 ~ 2 + 3 ~ 4 }} {{ 1 + 2 ~ 3 }} {{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1] }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ 'a' == 'a' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ 2 >= 2 }} {{ 2 <= 1 }} {{ 1 == '1' }}
{{ [1, [2]] == [1, [2]] }} {{ (1, 2) == [1, 2] }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ none == false }} {{ 0 == false }} {{ '' == none }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ missing < 1 }}
{{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'b' in 'abc' }} {{ 'z' in d }} {{ 'q' in d }} {{ 1 in (1, 2) }} {{ '' in 'abc' }} {{ none in [none] }} {{ 'x' in missing }} {{ true in [1] }}
{{ 1 in 'abc' }}
{{ 1 in none }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ not 1 }} {{ not '' }} {{ not not 5 }} {{ 1 and 0 or 3 }} {{ not 1 == 2 }} {{ 1 or 1 / 0 }}
{{ 'a' if yes else 'b' }} {{ 'a' if no else 'b' }} {{ 'a' if no }}|{{ 1 if 0 else 2 if 0 else 3 }} {{ ('a' if no) is defined }} {{ (1 if yes) + 1 }}
{{ - n }} {{ +n }} {{ - -n }} {{ -n|abs }} {{ -(n)|abs }} {{ -3 ** 2 }} {{ neg|abs }} {{ f|abs }}
{{ -'a' }}
{{ 'a' - 'b' }}
{{ 9223372036854775807 }} {{ 9223372036854775807 - 1 }}
{{ '%s is %d' % ('x', 5) }} {{ '%s' % 'y' }} {{ '100%%' % () }} {{ '%d' % 5.9 }} {{ '%r' % 'q' }} {{ '%s' % none }} {{ '%s' % [1, 2] }}
{{ '%s %s' % ('x',) }}
{{ '%s' % ('x', 'y') }}
{{ n is defined and n > 5 and n < 10 }} {{ n is number and text is string or nope }} {{ not n is none }} {{ n is not none }} {{ 1 is not defined }}
""")
# Slices
add("""
{{ [1, 2, 3, 4][1:] }} {{ [1, 2, 3, 4][:2] }} {{ [1, 2, 3, 4][::-1] }} {{ [1, 2, 3, 4][1:3] }} {{ [1, 2, 3, 4][-2:] }} {{ [1, 2, 3, 4][::2] }} {{ [1, 2, 3, 4][:-1] }} {{ [1, 2, 3, 4][10:] }} {{ [1, 2, 3, 4][-10:2] }}
{{ 'héllo 世界'[1:3] }} {{ 'héllo 世界'[::-1] }} {{ 'héllo 世界'[-2:] }} {{ 'héllo 世界'[:5:2] }} {{ 'abc'[5:] }}| {{ (1, 2, 3)[1:] }} {{ [1, 2, 3, 4, 5][3:0:-1] }} {{ [1, 2, 3][none:none] }} {{ [1, 2, 3][:] }} {{ [1,2,3,4,5][-1:-4:-2] }} {{ [1,2,3][::9223372036854775807] }}
{{ [1, 2][::0] }}
{{ nil[1:] }}
{{ n[1:] }}
{{ d[1:] }}
{{ messages[::-1][0].role }} {{ messages[1:]|length }} {{ messages[-1]['content'] == '' }} {{ messages[0:1][0]['role'] }} {{ range(10)[2:5]|list }} {{ range(5)[1] }}
""")
# Tests
add("""
{% for v in mixed %}{{ v is string }}{{ v is number }}{{ v is integer }}{{ v is float }}{{ v is boolean }}{{ v is none }}{{ v is mapping }}{{ v is sequence }}{{ v is iterable }}{{ v is true }}{{ v is false }}{{ v is callable }};{% endfor %}
{{ missing is defined }}{{ missing is undefined }}{{ missing is none }}{{ missing is string }}{{ missing is iterable }}{{ missing is mapping }}{{ missing is sequence }}{{ range is defined }}{{ range is callable }}
{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 1 is eq 1 }}{{ 1 is equalto 2 }}{{ 1 is ne 2 }}{{ 1 is lt 2 }}{{ 1 is gt 2 }}{{ 2 is ge 2 }}{{ 2 is le 1 }}{{ 1 is in [1] }}{{ 1 is not in [1] }}{{ 2 is greaterthan 1 }}{{ 2 is lessthan 1 }}
{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ 'aBc' is lower }}{{ '123' is lower }}{{ none is sameas none }}{{ true is sameas true }}{{ range(3) is sequence }}{{ range(3) is iterable }}{{ d.items() is sequence }}{{ d.keys() is iterable }}
{{ 1 is defined is true }}
{{ x is defined == false }}{{ n is defined == true }}{{ n is number ~ 'x' }}
""")
# Filters
add("""
{{ spaces|trim }}|{{ '--x--'|trim('-') }}|{{ 'xyx'|trim('xy') }}|{{ 5|trim }}|{{ none|trim }}|{{ missing|trim }}|
{{ text|upper }} {{ text|lower }} {{ uni|upper }} {{ uni|lower }} {{ uni|title }} {{ uni|capitalize }} {{ 'hello wORLD-foo (bar) it\\'s'|title }} {{ 'hELLO'|capitalize }} {{ 5|upper }} {{ none|lower }}
{{ text|replace('l', 'L') }} {{ text|replace('l', 'L', 1) }} {{ text|replace('', '-') }} {{ 'aaa'|replace('aa', 'b') }} {{ 121|replace('1', 'x') }} {{ 'é'|replace('', '.') }} {{ text|replace('o', '', 0) }}
{{ text|length }} {{ uni|length }} {{ [1, 2]|length }} {{ d|length }} {{ d|count }} {{ ''|length }} {{ '🌍'|length }} {{ range(4)|length }} {{ d.items()|length }}
{{ 5|length }}
{{ none|length }}
{{ words|select|length }}
{{ missing|default('x') }} {{ none|default('x') }} {{ ''|default('x') }} {{ ''|default('x', true) }} {{ none|default('x', boolean=true) }} {{ missing|d }}| {{ missing|default(default_value=3) }} {{ d.nope|default(1) }} {{ 0|default(5, true) }}
{{ words|join }} {{ words|join(', ') }} {{ nums|join('-') }} {{ users|join(', ', attribute='name') }} {{ 'abc'|join('.') }} {{ []|join('x') }}| {{ missing|join('x') }}| {{ d|join('+') }} {{ mixed|join('|') }}
{{ words|first }} {{ words|last }} {{ 'abc'|first }} {{ 'abc'|last }} {{ []|first }}| {{ []|last is defined }} {{ d|first }} {{ d|last }}
{{ 5|first }}
{{ words|list }} {{ 'abc'|list }} {{ d|list }} {{ d.values()|list }} {{ d.keys()|list }} {{ d.items()|list }} {{ (1, 2)|list }} {{ missing|list }} {{ range(3)|list }} {{ range(1, 10, 3)|list }} {{ range(3, 0, -1)|list }} {{ range(0)|list }}
{{ nums|sort }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ nums|sort(reverse=true) }} {{ users|sort(attribute='age')|map(attribute='name')|list }} {{ users|sort(attribute='name')|map(attribute='name')|join(',') }} {{ users|sort(attribute='age', reverse=true)|map(attribute='name')|join(',') }}
{{ mixed|sort }}
{{ nums|unique|list }} {{ words|unique|list }} {{ words|unique(case_sensitive=true)|list }} {{ users|unique(attribute='age')|map(attribute='name')|list }} {{ nums|min }} {{ nums|max }} {{ words|min }} {{ words|max(case_sensitive=true) }} {{ []|min }}| {{ users|max(attribute='age') }} {{ nums|sum }} {{ users|sum(attribute='age') }} {{ []|sum }} {{ nums|sum(start=10) }}
{{ nums|reverse|list }} {{ 'abc'|reverse }} {{ d|reverse|list }} {{ words|map('upper')|list }} {{ words|map('upper')|join }} {{ users|map(attribute='on')|list }} {{ users|map(attribute='on', default='?')|list }} {{ nums|map('string')|list }} {{ words|map('replace', 'a', 'x')|list }}
{{ nums|select('odd')|list }} {{ nums|reject('odd')|list }} {{ mixed|select('string')|list }} {{ mixed|select|list }} {{ mixed|reject|list }} {{ nums|select('gt', 1)|list }} {{ users|selectattr('on')|map(attribute='name')|list }} {{ users|rejectattr('on')|map(attribute='name')|list }} {{ users|selectattr('on', 'defined')|map(attribute='name')|list }} {{ users|selectattr('age', 'equalto', 30)|list|length }} {{ users|selectattr('name', 'in', ['Bob', 'Zoe'])|map(attribute='name')|join('/') }}
{{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|selectattr('role', 'eq', 'system')|first }} {{ messages|map(attribute='role')|list }} {{ messages|rejectattr('role', 'equalto', 'system')|list|last }} {{ messages|map(attribute='content')|map('trim')|list }}
{% set g = nums|select('odd') %}{{ g|list }}{{ g|list }}{% if nums|select('gt', 100) %}truthy{% endif %}{% set h = nums|map('abs') %}{{ h|first }}{{ h|list }}
{{ nums|map('nope')|list }}
{{ nums|select('nope')|list }}
{{ (words|map('upper'))[0] }}|
{{ '5'|int }} {{ '5.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 5.9|int }} {{ -5.9|int }} {{ none|int }} {{ ' 42 '|int }} {{ '1_000'|int }} {{ true|int }} {{ '0x1A'|int(base=16) }}| {{ '-0x1a'|int(0, 16) }} {{ '0b11'|int(0, 2) }} {{ '0x'|int(3, 16) }} {{ '1A'|int(base=16) }} {{ ''|int }} {{ '+5'|int }} {{ '-5'|int }} {{ '1e3'|int }}
{{ '5'|float }} {{ '5.5'|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ 5|float }} {{ none|float }} {{ '1e3'|float }} {{ ' 1.25 '|float }} {{ 'inf'|float }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.567|round(2) }} {{ 2.567|round(1, 'floor') }} {{ 2.1|round(method='ceil') }} {{ 5|round }} {{ 2.675|round(2) }} {{ -2.5|round }} {{ 1e20|round }}
{{ 5|string ~ 1 }} {{ none|string }} {{ [1]|string|length }} {{ missing|string }}| {{ html|safe }} {{ html|e }} {{ html|escape }} {{ 'a%sb'|format('x') }} {{ '%d-%s'|format(3, 'y') }}
{{ lines|indent }}|{{ lines|indent(2) }}|{{ lines|indent(2, true) }}|{{ lines|indent(2, blank=true) }}|{{ 'a\\nb'|indent('> ') }}|{{ ''|indent }}|{{ 'x'|indent(first=true) }}|
{{ d|dictsort }} {{ d|dictsort(true) }} {{ d|dictsort(reverse=true) }} {{ {'a': 3, 'b': 1}|dictsort(by='value') }} {{ {'b': 2, 'a': 1}|items|list }} {{ missing|items|list }}
{{ 5|items|list }}
{{ text|nope }}
{{ text|upper|lower|title|replace('h', 'j')|trim|length }}
""")
# tojson
add("""
{{ messages|tojson }}
{{ tools|tojson(indent=2) }}
{{ tools|tojson(indent=4) }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=2) }} {{ [[], {}, [1]]|tojson(indent=1) }} {{ [1, 2]|tojson(indent=0) }}
{{ ctrl|tojson }} {{ uni|tojson }} {{ '🌍'|tojson }} {{ '🌍é\\x7f'|tojson(ensure_ascii=true) }} {{ html|tojson }} {{ quotes|tojson }}
{{ [1, 1.0, 1e20, 1e-7, true, false, none, -0.0]|tojson }} {{ (1, 2)|tojson }} {{ {1: 'a', none: 'b', true: 'c', 1.5: 'd'}|tojson }} {{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }} {{ nested|tojson(indent=2, separators=(', ', '= ')) }}
{{ missing|tojson }}
{{ range|tojson }}
{{ d.items()|tojson }}
{{ 'inf'|float|tojson }} {{ big|tojson }} {{ neg|tojson }}
""")
# Methods
add("""
{{ spaces.strip() }}|{{ spaces.lstrip() }}|{{ spaces.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\\n\\nthink\\n'.lstrip('\\n') }}|{{ 'x世x'.strip('世x') }}|{{ 'abc'.strip('') }}|
{{ 'a,b,,c'.split(',') }} {{ 'a b  c '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'abc'.split('x') }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a--b--c'.split('--')[-1] }} {{ ' a b c '.split(none, 1) }} {{ ' a  b  c '.split(none, 2) }} {{ ' a '.split(none, 0) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b'.rsplit() }} {{ 'a,b'.split(sep=',') }} {{ 'a</think>b</think>c'.split('</think>')[-1].lstrip('\\n') }}
{{ 'a'.split('') }}
{{ text.startswith('Hell') }} {{ text.endswith('x') }} {{ text.startswith(('X', 'H')) }} {{ ''.startswith('') }} {{ text.upper() }} {{ text.lower() }} {{ 'hello world it\\'s 3abc'.title() }} {{ 'hELLO'.capitalize() }} {{ uni.title() }} {{ uni.upper() }} {{ uni.capitalize() }}
{{ text.replace('l', 'L') }} {{ text.replace('l', 'L', 1) }} {{ text.find('o') }} {{ text.find('zz') }} {{ text.rfind('o') }} {{ text.index('W') }} {{ text.count('l') }} {{ 'héé'.find('é') }} {{ ', '.join(words) }} {{ ''.join(['a']) }} {{ '-'.join('abc') }}
{{ text.index('zz') }}
{{ ','.join(nums) }}
{{ 'a=b=c'.partition('=') }} {{ 'abc'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.rpartition('=') }} {{ lines.splitlines() }} {{ lines.splitlines(true) }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }} {{ 'x'.removeprefix('y') }}
{{ '123'.isdigit() }} {{ ''.isdigit() }} {{ 'abc'.isalpha() }} {{ ' \\n'.isspace() }} {{ 'abc'.islower() }} {{ 'ABC'.isupper() }} {{ '²'.isdigit() }} {{ '{} and {}'.format('x', 5) }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x}'.format(x=1) }} {{ '{{}}'.format() }} {{ '{}'.format(none) }}
{{ '{}'.format() }}
{{ d.keys()|list }} {{ d.values()|list }} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }} {{ (1, 1).count(1) }} {{ d.copy() == d }} {{ d.get('a') + 1 }}
{{ [1].append(2) }}
{{ d.update({'x': 1}) }}
{{ d.pop('a') }}
{{ text.nope() }}
{{ n.nope() }}
{{ text.strip(1) }}
{{ text.upper(1) }}
""")
# Statements, scopes, white space
add("""
{% if n > 5 %}big{% elif n > 2 %}mid{% else %}small{% endif %}{% if no %}x{% endif %}{% if nil %}x{% elif words %}w{% endif %}
{% for x in nums %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ x }};{% endfor %}
{% for x in nums %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.cycle('a', 'b') }} {% endfor %}
{% for x in [] %}a{% else %}none{% endfor %}{% for x in nums if x > 5 %}a{% else %}none{% endfor %}{% for x in nums if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}
{% for k, v in d.items() %}{{ k }}:{{ v }} {% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for c in 'héy' %}[{{ c }}]{% endfor %}{% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}{% for k, v in d|items %}{{ k }}{% endfor %}
{% for a, b in [1, 2] %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for x in missing %}x{% else %}empty{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in range(3) %}{% for y in range(3) %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.index }} {% endfor %}{{ loop.index }}|{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(a=1, found=false) %}{% for i in nums %}{% set ns.a = ns.a + i %}{% if i == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.a }}{{ ns.found }}{{ ns.nope }}|{% set ns.new = 'n' %}{{ ns.new }}{{ ns['a'] }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}
{% set d.x = 1 %}
{% set nope.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, e) = [3, 4] %}{{ c }}{{ e }}{% set t = 1, 2 %}{{ t }}{% set u = 1, %}{{ u }}
{% set a, b = 1 %}
{% set block %}  x{{ n }}  {% endset %}[{{ block }}]{% set up | upper | trim %} abc {% endset %}[{{ up }}]{% set inner %}{% set leak = 1 %}{% endset %}{{ leak is defined }}
{% macro m(a, b='B', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, c=3) }}{{ m(b=1, a=2) }}{{ m() }}{{ m(1, 2, 3)|length }}{{ m is defined }}{{ m is callable }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, b=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m(a, b='B', c=1) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(7, *words[:2]) }}{{ m(*(1,), c=9) }}{{ '{}{}'.format(*nums[:2]) }}
{% macro f(x) %}{% if x > 0 %}{{ x }},{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(4) }}
{% set outer = 'o' %}{% macro m() %}{{ outer }}{{ later }}{% endmacro %}{% set later = 'l' %}{{ m() }}{% set outer = 'p' %}{{ m() }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}
{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}
{% macro box(t) %}<{{ t }}>{{ caller() }}</>{% endmacro %}{% call box('x') %}body{{ n }}{% endcall %}
{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) each(nums) %}({{ v }}){% endcall %}
{% filter upper %}abc {{ text }}{% endfilter %}{% filter replace('a', 'b')|trim %}  aaa {% endfilter %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set q = 5 %}{% endwith %}{{ a is defined }}{{ q is defined }}
{% with %}{% set q = 5 %}{{ q }}{% endwith %}
{% generation %}gen {{ n }}{% set inside = 1 %}{% endgeneration %}{{ inside is defined }}
{% print n %}{% raw %}{{ not }} {% x %}{% endraw %}{%- raw -%}  a {{ b }}  {%- endraw -%}  c{% raw %}⏎ x ⏎ {% endraw %}⏎y
{# comment #}a{# {{ x }} #}b{#- trim -#}  c  {#- d #}
{% if true %}⏎  line⏎{% endif %}⏎after
  {% if true %}⏎    x⏎  {% endif %}⏎  y⏎
a  {% if true %}  b  {% endif %}  c
a  {%- if true -%}  b  {%- endif -%}  c
⏎⏎{%- if true %}⏎x⏎{%- endif %}⏎⏎z
  {%+ if true %}x{% endif %}⏎{% if true +%}⏎y{% endif %}
  {{ n }}  ⏎  {{- n -}}  ⏎  {{ n }}⏎
  {# c #}⏎  x⏎	{# t #}	y⏎
{{ n }}⏎⏎
{{ n }}⏎
a⏎  {%- set x = 1 %}⏎  {{- x }}⏎⏎  b
{%if true%}a{%endif%}{{n}}{{'}}'}}{{ '{%' }}{{ "%}" }}{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a':{}} }}
{% set x = {'a': 1, 'b': [1, 2, {'c': 'd'}]} %}{{ x.b[2].c }}{{ x }}{{ {'a': 1, 'a': 2} }}
{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content|trim + '\\n' }}{% endfor %}
{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.role[0]|upper }}{% endfor %}
{{ raise_exception('told you') }}
{{ raise_exception() }}
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%A %-d %B') }} {{ strftime_now is defined }}
{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict() }} {{ range(2, 4)|list }} {{ loop is defined }}
{% set x = 5 %}{% set f = x if x > 3 else 0 %}{{ f }}{% if x is defined and x is not none and x > 3 and 'a' in ['a'] %}ok{% endif %}
{{ tools[0].function.parameters.properties.items()|list }} {% for t in tools %}{{ t.function|tojson }}{% endfor %} {{ tools is iterable and tools is not mapping and tools|length > 0 }}
{{ messages[2].tool_calls[0].function.arguments.items()|list }} {{ messages[2]['tool_calls'][0].function.arguments|tojson }} {{ messages[0].tool_calls is defined }} {{ (messages[2].tool_calls|first).function.name }}
{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{{ index }}{{ m.role }} {% endfor %}
{% set content = messages[1].content.split('<there>')[-1].strip() %}{{ content }}{{ content is string and not (content.startswith('<x>') and content.endswith('</x>')) }}
{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content']|trim %}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{{ system_message }}{{ loop_messages|length }}{% for m in loop_messages %}{{ (m['role'] == 'user') != (loop.index0 % 2 == 0) }}{% endfor %}
{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}{{ ns.last }}
{% for x in nums %}{% set loop_index = loop.index %}{% for y in words %}{{ loop_index }}{{ loop.index }}{{ y }}{% endfor %}{% endfor %}
{% if true %}x
{% endif %}
{% for x in nums %}x{% endif %}
{{ n
{% if n
{{ n }
{{ 'abc }}
{{ (1, 2 }}
{{ [1, 2) }}
{{ 1 + }}
{{ }}
{% nope %}
{% set 1 = 2 %}
{% set true = 2 %}
{# open
{% raw %} x
{{ n | }}
{{ n is }}
{{ n ! m }}
{% break %}
{{ f(a=1, 2) }}
""")
add("""
{{ "a" if n == 7 and not no else "b" }}{{ (n == 7) ~ (n != 7) }}{{ n in [7] and 'y' or 'n' }}{{ [x for x in nums] }}
{{ loop.index }}
{% for i in range(2) %}{{ loop.index }}{% endfor %}{{ loop }}
{{ users|map(attribute='name')|map('lower')|sort|join(' ') }}{{ users|selectattr('on', 'true')|list|length }}
{{ 'a' is in 'abc' }}{{ 'a' is not in 'xyz' }}{{ 5 is not string }}{{ d is mapping }}{{ nope is not defined }}
{{ messages[0]['role'] is string }}{{ messages[9] is defined }}{{ messages[-9] is defined }}{{ messages[9].role is defined }}
{{ nested.get('a', {}).get('b', [])|length }}{{ nested.a.get('zzz') is none }}{{ (nested.a.zzz or 'dflt')|upper }}
{{ '<think>' in '<think>x' }}{{ 'x'.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}
{{ [1,2,3]|length > 2 and [1]|length == 1 }}{{ 2 + [1]|length }}{{ [1, 2]|length * 2 }}{{ -[1]|length }}{{ not []|length }}
{{ text|upper if yes else text }}{{ (text if no else 'other')|upper }}{{ text ~ '!'|upper }}{{ (text ~ 'x')|upper }}
{{ 1 if yes }}{{ 1 if no }}{{ '' ~ (1 if no) }}{{ [1 if no] }}
{{ "x" * 3 ~ "-" * 2 }}{{ "=" * (5 - 2) }}{{ 10 - 2 - 3 }}{{ 100 // 7 // 2 }}{{ 2 * 3 % 4 }}
{% set x %}{% for i in nums %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}{% endset %}{{ x }}{{ x|length }}
{% for a in [[1, 2], [3, 4]] %}{% for b in a %}{{ b }}{% if not loop.last %},{% endif %}{% endfor %}{% if not loop.last %};{% endif %}{% endfor %}
{{ (1, 'a', none) }}{{ ('a', ) }}{{ (('a')) }}{{ [('a', 1), ('b', 2)] }}
{{ 'A' 'B' ~ 'C' }}{{ 'a' in ('a') }}{{ 'ab'|list|join('-') }}
{% if x is undefined %}u{% endif %}{% if n is integer and n is divisibleby 7 %}d{% endif %}
{{ {'a': 1}.a }}{{ {'a': 1}['a'] }}{{ [{'a': 1}][0].a }}{{ 'abc'.upper()[0] }}{{ 'abc'[0:2].upper() }}{{ ('a' ~ 'b').upper() }}
{{ messages | length }}{{ messages|map(attribute='role')|unique|list }}{{ messages|map(attribute='tool_calls')|list|length }}
{{ messages|map(attribute='tool_calls', default=[])|map('length')|list }}{{ messages|map(attribute='tool_calls')|select('defined')|list|length }}
""")

TOOL = VARIABLES["tools"][0]
CALL = {"type": "function", "id": "call00001", "function": {"name": "get_weather", "arguments": {"city": "Hà Nội", "days": 2}}}
CONVERSATIONS = [
    {"name": "one question", "messages": [{"role": "user", "content": "Hi"}]},
    {"name": "no prompt", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "add_generation_prompt": False},
    {"name": "system and turns", "messages": [
        {"role": "system", "content": "You are kind."}, {"role": "user", "content": "  What's 2+2?  "},
        {"role": "assistant", "content": "4.\n"}, {"role": "user", "content": "And 3+3?"}]},
    {"name": "unicode and empty", "messages": [
        {"role": "user", "content": "Xin chào 世界 🌍 é\n\n\"q\" <b>&</b>"}, {"role": "assistant", "content": ""}, {"role": "user", "content": ""}]},
    {"name": "empty system", "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "x"}]},
    {"name": "thinking", "messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nanswer"},
        {"role": "user", "content": "again"}]},
    {"name": "reasoning kept", "messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "because"}], "add_generation_prompt": False},
    {"name": "thinking off", "messages": [{"role": "user", "content": "q"}], "variables": {"enable_thinking": False}},
    {"name": "tools", "messages": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Weather?"}], "tools": [TOOL]},
    {"name": "tools without system", "messages": [{"role": "user", "content": "Weather?"}], "tools": [TOOL, TOOL]},
    {"name": "tool round", "messages": [
        {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"t\": 31}"}], "tools": [TOOL]},
    {"name": "two tool results", "messages": [
        {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call00002"}]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "31"},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00002", "content": "28"},
        {"role": "assistant", "content": "31 and 28."}, {"role": "user", "content": "Thanks"}], "tools": [TOOL]},
    {"name": "parts", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
    {"name": "wrong order", "messages": [{"role": "assistant", "content": "me first"}, {"role": "assistant", "content": "me again"}]},
    {"name": "unknown role", "messages": [{"role": "narrator", "content": "Once upon a time"}]},
    {"name": "nothing", "messages": []},
]

# Written for these tests in the manner of well-known model files, so that the constructs they rely on are covered.
OWN_TEMPLATES = {
    "bracket-instructions": {"bos_token": "<s>", "eos_token": "</s>", "license": "Apache-2.0, this project", "source":
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}"
        "{% else %}{% set rest = messages %}{% set sys = false %}{% endif %}"
        "{% for message in rest %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must take turns, user first') }}{% endif %}"
        "{% if loop.index0 == 0 and sys != false %}{% set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"},
    "header-blocks-with-date": {"bos_token": "<|begin|>", "eos_token": "<|eot|>", "license": "Apache-2.0, this project", "source": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "01 Jan 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{#- The system message, if there is one -#}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\nToday: " + date_string + "\\n\\n" + system + eos_token }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' + message['content'] | trim + eos_token }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One tool call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|head|>assistant<|/head|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}" ~ eos_token }}
    {%- else %}
        {{- "<|head|>result<|/head|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if tools is not none %}{% for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{% endfor %}{% endif %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""},
    "functions-by-macro": {"bos_token": "", "eos_token": "<|im_end|>", "license": "Apache-2.0, this project", "source": """{%- macro type_of(spec) -%}
{%- set names = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"} -%}
{%- if names[spec.type] is defined -%}{{- names[spec.type] -}}
{%- elif spec.type == "array" -%}{{- "list[" + type_of(spec["items"]) + "]" -}}
{%- elif spec.type is iterable and spec.type is not string -%}{{- spec.type | join(" | ") -}}
{%- else -%}{{- "Any" -}}{%- endif -%}
{%- endmacro -%}
{%- if tools %}{% for tool in tools %}
{%- set f = tool.function if tool.function is defined else tool %}
def {{ f.name }}(
{%- for name, spec in f.parameters.properties.items() %}{{ name }}: {{ type_of(spec) }}{% if name not in f.parameters.required %} = None{% endif %}{{ ", " if not loop.last }}{% endfor %})
{% endfor %}{% endif %}
{%- set ns = namespace(last_user=-1, calls=0) %}
{%- for m in messages[::-1] %}{% set i = messages|length - 1 - loop.index0 %}{% if m.role == "user" and ns.last_user < 0 %}{% set ns.last_user = i %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- set body = m.content if m.content is string else '' %}
{%- if m.reasoning_content is string %}{% set thought = m.reasoning_content %}{% elif '</think>' in body %}
{%- set thought = body.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set body = body.split('</think>')[-1].lstrip('\\n') %}
{%- else %}{% set thought = '' %}{% endif %}
{%- if loop.previtem is defined and loop.previtem.role == m.role %}{{ '+' }}{% endif %}
<|im_start|>{{ m.role }}
{% if thought and loop.index0 > ns.last_user %}<think>{{ thought }}</think>
{% endif %}{{ body }}
{%- for call in m.tool_calls or [] %}{% set ns.calls = ns.calls + 1 %}
<call {{ ns.calls }}>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>
{%- endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""},
    "turns-with-parts": {"bos_token": "<bos>", "eos_token": "<end>", "license": "Apache-2.0, this project", "source": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("Turns must alternate user/assistant") }}{%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<turn>' + role + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{ raise_exception("Content of an unknown kind") }}{%- endif -%}
    {{ '<end>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<turn>model\\n' }}{%- endif -%}
"""},
    "checked-ids": {"bos_token": "<s>", "eos_token": "</s>", "license": "Apache-2.0, this project", "source": """{%- if messages[0]["role"] == "system" %}{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("user and assistant must alternate") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}{%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}{{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception("Ids have 9 characters") }}{%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}{%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[RESULTS] {"content": ' + content|string + ", " }}{{- '"id": "' + message.tool_call_id + '"}[/RESULTS]' }}
    {%- else %}{{- raise_exception("Unknown role: " ~ message.role) }}{%- endif %}
{%- endfor %}
"""},
}
