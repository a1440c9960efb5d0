// SPDX-License-Identifier: GPL-2.0

//! The commands that the driver uses.

use super::Command;
use crate::wire::cmd::*;

macro_rules! commands {
    ($( $(#[$meta:meta])* $name:ident = $opcode:literal: $in:ident => $out:ident $(, $length:literal)?; )*) => {
        $(
            $(#[$meta])*
            pub(crate) enum $name {}

            impl Command for $name {
                const OPCODE: u16 = $opcode;
                const NAME: &'static str = stringify!($name);
                type In = $in;
                type Out = $out;
                $( const OUTPUT_LENGTH: usize = $length; )?
            }
        )*
    };
}

commands! {
    /// op_mod: capability type << 1, bit 0 for the current values.
    QueryHcaCap = 0x100: EmptyIn => QueryHcaCapOut, 0x1010;
    InitHca = 0x102: InitHcaIn => StatusOut;
    TeardownHca = 0x103: EmptyIn => StatusOut;
    EnableHca = 0x104: EmptyIn => StatusOut;
    DisableHca = 0x105: EmptyIn => StatusOut;
    /// op_mod: 1 for what ENABLE_HCA needs, 2 for INIT_HCA.
    QueryPages = 0x107: EmptyIn => QueryPagesOut;
    QueryIssi = 0x10a: EmptyIn => QueryIssiOut;
    SetIssi = 0x10b: SetIssiIn => StatusOut;
    CreateMkey = 0x200: CreateMkeyIn => NumberOut;
    DestroyMkey = 0x202: NumberIn => StatusOut;
    CreateEq = 0x301: CreateEqIn => CreateEqOut;
    DestroyEq = 0x302: DestroyEqIn => StatusOut;
    CreateCq = 0x400: CreateCqIn => NumberOut;
    DestroyCq = 0x401: NumberIn => StatusOut;
    ModifyCq = 0x403: ModifyCqIn => StatusOut;
    QueryVportState = 0x750: EmptyIn => QueryVportStateOut;
    QueryNicVportContext = 0x754: EmptyIn => QueryNicVportContextOut;
    /// Numbers of counters have 8 bits.
    AllocQCounter = 0x771: EmptyIn => NumberOut;
    DeallocQCounter = 0x772: NumberIn => StatusOut;
    QueryQCounter = 0x773: QueryQCounterIn => QueryQCounterOut;
    AllocPd = 0x800: EmptyIn => NumberOut;
    DeallocPd = 0x801: NumberIn => StatusOut;
    AllocUar = 0x802: EmptyIn => NumberOut;
    DeallocUar = 0x803: NumberIn => StatusOut;
    /// op_mod: 0 to write, 1 to read.
    AccessRegister = 0x805: AccessRegisterIn => AccessRegisterOut;
    AllocTransportDomain = 0x816: EmptyIn => NumberOut;
    DeallocTransportDomain = 0x817: NumberIn => StatusOut;
    CreateTir = 0x900: CreateTirIn => NumberOut;
    DestroyTir = 0x902: NumberIn => StatusOut;
    CreateSq = 0x904: CreateSqIn => NumberOut;
    ModifySq = 0x905: ModifySqIn => StatusOut;
    DestroySq = 0x906: NumberIn => StatusOut;
    CreateRq = 0x908: CreateRqIn => NumberOut;
    ModifyRq = 0x909: ModifyRqIn => StatusOut;
    DestroyRq = 0x90a: NumberIn => StatusOut;
    CreateTis = 0x912: CreateTisIn => NumberOut;
    DestroyTis = 0x914: NumberIn => StatusOut;
    CreateRqt = 0x916: CreateRqtIn => NumberOut;
    DestroyRqt = 0x918: NumberIn => StatusOut;
    /// op_mod: 0 to set it, 1 for no root.
    SetFlowTableRoot = 0x92f: FlowTableIn => StatusOut;
    CreateFlowTable = 0x930: CreateFlowTableIn => NumberOut;
    DestroyFlowTable = 0x931: FlowTableIn => StatusOut;
    CreateFlowGroup = 0x933: CreateFlowGroupIn => NumberOut;
    DestroyFlowGroup = 0x934: DestroyFlowGroupIn => StatusOut;
    /// op_mod: 0 to create.
    SetFte = 0x936: SetFteIn => StatusOut;
    DeleteFte = 0x938: DeleteFteIn => StatusOut;
    CreateGeneralObject = 0xa00: CreateGeneralObjectIn => CreateGeneralObjectOut;
    DestroyGeneralObject = 0xa03: DestroyGeneralObjectIn => StatusOut;
}
