# Adds backend/cpu to tempora_engine, or no_cpu.cpp in its place.
if(NOT TEMPORA_CPU)
  target_sources(tempora_engine PRIVATE src/backend/no_cpu.cpp)
  message(STATUS "CPU backend: left out (TEMPORA_CPU=OFF)")
  return()
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)

# oneDNN by its header and shared library, wherever the system keeps them; else by the CMake package of an
# installation of its own. The package comes second because Debian 12's asks for OpenCL's development files.
find_path(DNNL_INCLUDE_DIR dnnl.hpp)
find_library(DNNL_LIBRARY dnnl)
if(DNNL_INCLUDE_DIR AND DNNL_LIBRARY)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(
    DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR}
  )
else()
  find_package(dnnl CONFIG QUIET)
  if(NOT TARGET DNNL::dnnl)
    message(FATAL_ERROR "oneDNN was not found. Install it (Debian and Ubuntu: libdnnl-dev, Fedora: onednn-devel, Arch "
                        "and Homebrew: onednn), or name it by -DDNNL_INCLUDE_DIR and -DDNNL_LIBRARY")
  endif()
endif()

file(GLOB cpu_sources CONFIGURE_DEPENDS src/backend/cpu/*.cpp)
target_sources(tempora_engine PRIVATE ${cpu_sources})
target_link_libraries(tempora_engine PUBLIC DNNL::dnnl OpenMP::OpenMP_CXX)

# The kernels are compiled once for each set of instructions, each time into a namespace of that name.
set(flags_baseline "")
set(flags_avx2 -mavx2 -mfma -mf16c)
set(flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl ${flags_avx2} -mprefer-vector-width=512)
set(flags_avx512bf16 ${flags_avx512} -mavx512bf16)
set(flags_amx ${flags_avx512bf16} -mamx-tile -mamx-bf16)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  target_compile_definitions(tempora_options INTERFACE TEMPORA_HAVE_X86_ISAS=1)
  set(kernel_variants ${TEMPORA_X86_KERNELS})
else()
  set(kernel_variants baseline)
endif()

file(GLOB kernel_sources CONFIGURE_DEPENDS src/backend/cpu/kernels/*.cpp)
if(kernel_sources)
  foreach(isa IN LISTS kernel_variants)
    add_library(kernels_${isa} OBJECT ${kernel_sources})
    target_compile_definitions(kernels_${isa} PRIVATE TEMPORA_ISA=${isa})
    target_compile_options(kernels_${isa} PRIVATE ${flags_${isa}})
    target_link_libraries(kernels_${isa} PRIVATE tempora_options DNNL::dnnl OpenMP::OpenMP_CXX)
    target_sources(tempora_engine PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
  endforeach()
  if(TARGET kernels_amx)
    target_compile_definitions(kernels_amx PRIVATE TEMPORA_TILES=1)
    # Kernels throw nothing; giving the tiles back in a destructor would else define what unwinding needs, outside the
    # namespace of the instruction set.
    target_compile_options(kernels_amx PRIVATE -fno-exceptions)
    target_include_directories(kernels_amx PRIVATE src/backend/cpu/kernels/amx)
  endif()
endif()
message(STATUS "CPU backend: kernels for ${kernel_variants}")
