import { describe, expect, test } from "vitest";
import { cppFunctions } from "./cpp-functions.ts";
import { lengthProblems } from "./limits.ts";

const body = (lines: number) => "  work();\n".repeat(lines);

describe("cppFunctions", () => {
  test("measures functions, methods and constructors inside namespaces and classes", () => {
    const text = `namespace a {
class B {
 public:
  explicit B(int n) : size_{n}, rest_(n) {
    work();
  }
  int size() const override { return size_; }
};
template <class T>
std::vector<T> copies(const T& value) {
${body(3)}}
}  // namespace a
`;
    expect(cppFunctions(text)).toEqual([
      { head: "explicit B(int n) : size_(), rest_(n)", line: 4, bodyLines: 1 },
      { head: "int size() const override", line: 7, bodyLines: -1 },
      { head: "template <class T> std::vector<T> copies(const T& value)", line: 10, bodyLines: 3 },
    ]);
  });

  test("is not misled by comments, literals, macros, lambdas and initializers", () => {
    const text = `// void commented() {
#define LOOP(x) \\
  for (;;) {
constexpr int kTable[] = {1, 1'000, '{', 3};
const char* text = "{ \\" {";
auto raw = R"({{)";
void run() {
  auto step = [&](int i) { return i; };
  if (true) {
    step(1);
  }
}
`;
    expect(cppFunctions(text)).toEqual([{ head: "void run()", line: 7, bodyLines: 4 }]);
  });
});

describe("lengthProblems", () => {
  test("names long functions with their line", () => {
    expect(lengthProblems([{ path: "native/src/a.cpp", text: `\nvoid f() {\n${body(60)}}\n` }])).toEqual([]);
    expect(lengthProblems([{ path: "native/src/a.cpp", text: `\nvoid f() {\n${body(61)}}\n` }])).toEqual([
      "native/src/a.cpp:2: a function of 61 lines, over 60: void f()",
    ]);
  });

  test("holds kernels to 300 lines and all else to 450", () => {
    const text = (lines: number) => "x\n".repeat(lines);
    expect(lengthProblems([{ path: "packages/a/src/b.ts", text: text(450) }])).toEqual([]);
    expect(lengthProblems([{ path: "packages/a/src/b.ts", text: text(451) }])).toHaveLength(1);
    expect(lengthProblems([{ path: "native/src/backend/cpu/kernels/a.cpp", text: text(301) }])).toHaveLength(1);
    expect(lengthProblems([{ path: "native/src/backend/cuda/a.cu", text: text(301) }])).toHaveLength(1);
  });
});
