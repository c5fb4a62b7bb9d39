# Adds backend/cuda to tempora_engine, or no_cuda.cpp, which carries the reason, in its place.
# CMake 3.25's FindCUDAToolkit stops at CUDA 13 (it wants nvToolsExt), hence find_path and find_library.
if(NOT TEMPORA_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TEMPORA_CUDA is ${TEMPORA_CUDA}; it may be AUTO, ON or OFF")
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS src/backend/cuda/*.cu src/backend/cuda/*.cpp)
set(no_cuda_reason "")
if(TEMPORA_CUDA STREQUAL "OFF")
  set(no_cuda_reason "it was switched off (TEMPORA_CUDA=OFF)")
elseif(NOT cuda_sources)
  set(no_cuda_reason "this version has no CUDA sources")
else()
  # That there was no nvcc at an earlier configuration says nothing about today.
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(no_cuda_reason "no nvcc was found (put it on PATH or set CUDACXX, then build again)")
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual)
    enable_language(CUDA)
    find_path(TEMPORA_CUBLASLT_INCLUDE cublasLt.h HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    if(NOT TEMPORA_CUBLASLT_INCLUDE)
      set(no_cuda_reason "nvcc is there, but cublasLt.h is not (it belongs to the package libcublas-dev)")
    endif()
  endif()
endif()

set(TEMPORA_HAS_CUDA OFF)
if(no_cuda_reason)
  if(TEMPORA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TEMPORA_CUDA=ON, but ${no_cuda_reason}")
  endif()
  target_sources(tempora_engine PRIVATE src/backend/no_cuda.cpp)
  set_source_files_properties(
    src/backend/no_cuda.cpp PROPERTIES COMPILE_DEFINITIONS "TEMPORA_NO_CUDA_REASON=\"${no_cuda_reason}\""
  )
  message(STATUS "CUDA backend: left out, because ${no_cuda_reason}")
  return()
endif()

set(TEMPORA_HAS_CUDA ON)
set(TEMPORA_CUDA_INCLUDES ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} ${TEMPORA_CUBLASLT_INCLUDE})
target_sources(tempora_engine PRIVATE ${cuda_sources})
target_include_directories(tempora_engine SYSTEM PRIVATE ${TEMPORA_CUDA_INCLUDES})
# <mma.cuh>, which the tests' emulated device replaces.
target_include_directories(tempora_engine PRIVATE src/backend/cuda/ptx)
# CMake 3.25 does not know how to ask nvcc for C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
endif()
# The runtime is static, so that the addon loads on a machine without CUDA.
set_target_properties(
  tempora_engine PROPERTIES CUDA_STANDARD 20 CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static
)
target_compile_options(tempora_engine PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra>)
target_link_libraries(tempora_engine PUBLIC ${CMAKE_DL_LIBS})
message(STATUS "CUDA backend: sm_80, sm_90a and compute_90 by ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}")
