// AMX's tiles are used only by a process that has asked for them: their state makes each thread's context larger.
#pragma once

namespace tempora {

// Whether this CPU has tiles of bf16 and the kernel lets this process use them; asks it to. What this finds once holds
// for all threads, those to come included. The kernel refuses where a thread's alternative signal stack is too small.
bool tiles_permitted();

}  // namespace tempora
