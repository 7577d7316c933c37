//! What an expression becomes: itself, or something else when its number is chosen.
//!
//! Operands stand once in the result, so that what is nested does not double with every level. Their evaluation order, and
//! whether they are evaluated at all, stay as they were.

use syn::{BinOp, Expr, ExprBinary, ExprLit, Lit, LitInt, Stmt, parse_quote};

/// An operator's symbol, and the operator.
type Operator = (&'static str, fn() -> BinOp);

/// What an operator can be mistaken for.
pub fn mistaken(operator: &BinOp) -> &'static [Operator] {
    match operator {
        BinOp::Lt(_) => &[("<=", || parse_quote!(<=)), (">=", || parse_quote!(>=))],
        BinOp::Le(_) => &[("<", || parse_quote!(<)), (">", || parse_quote!(>))],
        BinOp::Gt(_) => &[(">=", || parse_quote!(>=)), ("<=", || parse_quote!(<=))],
        BinOp::Ge(_) => &[(">", || parse_quote!(>)), ("<", || parse_quote!(<))],
        BinOp::Eq(_) => &[("!=", || parse_quote!(!=))],
        BinOp::Ne(_) => &[("==", || parse_quote!(==))],
        BinOp::Add(_) => &[("-", || parse_quote!(-))],
        BinOp::Sub(_) => &[("+", || parse_quote!(+))],
        BinOp::Mul(_) => &[("/", || parse_quote!(/))],
        BinOp::Div(_) => &[("*", || parse_quote!(*))],
        BinOp::Rem(_) => &[("/", || parse_quote!(/))],
        BinOp::BitAnd(_) => &[("|", || parse_quote!(|))],
        BinOp::BitOr(_) => &[("&", || parse_quote!(&))],
        BinOp::BitXor(_) => &[("|", || parse_quote!(|))],
        BinOp::And(_) => &[("||", || parse_quote!(||))],
        BinOp::Or(_) => &[("&&", || parse_quote!(&&))],
        BinOp::AddAssign(_) => &[("-=", || parse_quote!(-=))],
        BinOp::SubAssign(_) => &[("+=", || parse_quote!(+=))],
        BinOp::BitAndAssign(_) => &[("|=", || parse_quote!(|=))],
        BinOp::BitOrAssign(_) => &[("&=", || parse_quote!(&=))],
        _ => &[],
    }
}

/// The operation, or the first of `instead` whose switch is on.
pub fn operation(binary: &ExprBinary, instead: &[(Expr, BinOp)]) -> Expr {
    let ExprBinary { left, op, right, .. } = binary;
    match op {
        // Both are the same but for the left side that is enough.
        BinOp::And(_) => {
            let switches = instead.iter().map(|(on, _)| on);
            parse_quote!(({ let __left = #left; if __left #(!= #switches)* { #right } else { __left } }))
        }
        BinOp::Or(_) => {
            let switches = instead.iter().map(|(on, _)| on);
            parse_quote!(({ let __left = #left; if __left #(!= #switches)* { __left } else { #right } }))
        }
        BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) | BinOp::Eq(_) | BinOp::Ne(_) => {
            let chosen = chosen(instead, op, &parse_quote!(__left), &parse_quote!(__right));
            parse_quote!((match (&(#left), &(#right)) { (__left, __right) => #chosen }))
        }
        op if is_assignment(op) => chosen(instead, op, left, right),
        _ => {
            let chosen = chosen(instead, op, &parse_quote!(__left), &parse_quote!(__right));
            parse_quote!((match (#left, #right) { (__left, __right) => #chosen }))
        }
    }
}

/// Whether the operator writes to its left side.
pub fn is_assignment(operator: &BinOp) -> bool {
    matches!(
        operator,
        BinOp::AddAssign(_) | BinOp::SubAssign(_) | BinOp::BitAndAssign(_) | BinOp::BitOrAssign(_)
    )
}

fn chosen(instead: &[(Expr, BinOp)], op: &BinOp, left: &Expr, right: &Expr) -> Expr {
    let mut all: Expr = parse_quote!({ #left #op #right });
    for (on, other) in instead.iter().rev() {
        all = parse_quote!(if #on { #left #other #right } else #all);
    }
    all
}

/// A truth, or its opposite.
pub fn inverted(truth: &Expr, on: &Expr) -> Expr {
    parse_quote!(((#truth) != #on))
}

/// A condition, which may bind names, or never.
pub fn never(condition: &Expr, on: &Expr) -> Expr {
    if binds(condition) { parse_quote!(!#on && #condition) } else { parse_quote!((!#on && (#condition))) }
}

/// A guard: itself, always, or never.
pub fn guard(guard: &Expr, always: Option<&Expr>, never: Option<&Expr>) -> Expr {
    let mut all: Expr = parse_quote!((#guard));
    if let Some(on) = never {
        all = parse_quote!((!#on && #all));
    }
    if let Some(on) = always {
        all = parse_quote!((#on || #all));
    }
    all
}

/// A number, or one of `instead`.
pub fn number(literal: &LitInt, instead: &[(Expr, LitInt)]) -> Expr {
    let mut all: Expr = parse_quote!({ #literal });
    for (on, other) in instead.iter().rev() {
        all = parse_quote!(if #on { #other } else #all);
    }
    parse_quote!((#all))
}

/// The numbers beside a literal, with its type.
pub fn beside(literal: &LitInt) -> Vec<LitInt> {
    let Ok(value) = literal.base10_parse::<u128>() else { return Vec::new() };
    let with_type = |value: u128| LitInt::new(&format!("{value}{}", literal.suffix()), literal.span());
    let greatest = match literal.suffix() {
        "u8" => u128::from(u8::MAX),
        "u16" => u128::from(u16::MAX),
        "u32" => u128::from(u32::MAX),
        _ => u128::from(u64::MAX),
    };
    let above = (value < greatest).then(|| with_type(value + 1));
    above.into_iter().chain(value.checked_sub(1).map(with_type)).collect()
}

/// Two calls, of which the switch chooses one.
pub fn either(on: &Expr, mutated: &Expr, original: &Expr) -> Expr {
    parse_quote!((if #on { #mutated } else { #original }))
}

/// A statement that the switch leaves out.
pub fn removable(statement: &Stmt, on: &Expr) -> Stmt {
    parse_quote!(if !#on { #statement })
}

/// A statement that ends the function early.
pub fn early(answer: &Expr, on: &Expr) -> Stmt {
    parse_quote!(if #on { return #answer; })
}

/// Whether a condition binds names.
pub fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(ExprBinary { left, op: BinOp::And(_), right, .. }) => binds(left) || binds(right),
        _ => false,
    }
}

/// The literal, if it is an integer.
pub fn integer(expression: &Expr) -> Option<&LitInt> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Int(literal), .. }) => Some(literal),
        _ => None,
    }
}
